"""What happens to pods and containers, for clients that want to be told instead of asking again and again.

An event is made in the same step as the change of the record, and holds the records of that moment: what a client reads in it
was so together, and events come in the order of the changes. A client that reads too slowly loses the oldest of its events, is
counted, and never holds anybody else.

Source: CRI v1, GetContainerEvents; kubelet's evented PLEG, which takes pods' own events too and wants a pod in each.
"""

import asyncio
import enum
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final, NamedTuple

from criollo.model.container import Container, ContainerState
from criollo.model.pod import Pod, PodState
from criollo.state.records import State
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

MAX_WAITING: Final = 1000  # events of one client


class EventKind(enum.IntEnum):
    """Numbers of CRI's ContainerEventType."""

    CREATED = 0
    STARTED = 1
    STOPPED = 2
    DELETED = 3


class Event(NamedTuple):
    """`id` is a container's or a pod's; `pod` and `containers`, all that a client may see of its, are of that moment."""

    kind: EventKind
    id: str
    at_ns: int
    pod: Pod
    containers: tuple[Container, ...]


_OF_CONTAINER: Final = {
    ContainerState.CREATED: (EventKind.CREATED,),
    ContainerState.RUNNING: (EventKind.STARTED,),
    ContainerState.EXITED: (EventKind.STOPPED,),
}
_OF_POD: Final = {PodState.READY: (EventKind.CREATED, EventKind.STARTED), PodState.NOTREADY: (EventKind.STOPPED,)}


class Events:
    """Hears of every change of `state` and tells those who follow."""

    def __init__(self, state: State, clock: Callable[[], int], *, limit: int = MAX_WAITING) -> None:
        self._state, self._clock, self._limit = state, clock, limit
        self._followers: set[_Follower] = set()
        self._is_closed = False
        self._born: set[str] = set()  # pods and containers whose CREATED was due: only those get a DELETED
        self.dropped = 0
        for record in (*state.pods, *state.containers):
            if record.state not in (PodState.CREATING, ContainerState.CREATING):
                self._born.add(record.id)
        state.pods.changed = self._pod_changed
        state.containers.changed = self._container_changed

    async def follow(self) -> AsyncGenerator[Event, None]:
        """Events from now on, until the iterator is closed or the daemon stops."""
        follower = _Follower(self._limit)
        self._followers.add(follower)
        try:
            while not self._is_closed:
                while follower.waiting:
                    yield follower.waiting.popleft()
                follower.news.clear()
                if not self._is_closed:
                    await follower.news.wait()
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """End all that follow."""
        self._is_closed = True
        for follower in self._followers:
            follower.news.set()

    def _pod_changed(self, before: Pod | None, after: Pod | None) -> None:
        pod = after or before
        assert pod is not None
        if after is None:
            self._deleted(pod.id, pod)
        elif before is not None and before.state is not after.state:
            for kind in _OF_POD.get(after.state, ()):
                self._tell(kind, pod.id, pod)

    def _container_changed(self, before: Container | None, after: Container | None) -> None:
        container = after or before
        assert container is not None
        pod = self._state.pods.get(container.pod_id)
        if pod is None:  # of a broken row: nobody knows it
            return
        if after is None:
            self._deleted(container.id, pod)
        elif before is not None and before.state is not after.state:
            for kind in _OF_CONTAINER.get(after.state, ()):
                self._tell(kind, container.id, pod)

    def _deleted(self, record_id: str, pod: Pod) -> None:
        if record_id in self._born:
            self._tell(EventKind.DELETED, record_id, pod)
            self._born.discard(record_id)

    def _tell(self, kind: EventKind, record_id: str, pod: Pod) -> None:
        if kind is EventKind.CREATED:
            self._born.add(record_id)
        if not self._followers:
            return
        rows = self._state.containers
        seen = tuple(each for each in rows.of_pod(pod.id) if rows.is_visible(each))
        event = Event(kind, record_id, self._clock(), pod, seen)
        for follower in self._followers:
            if follower.take(event):
                self.dropped += 1


class _Follower:
    """One client's queue."""

    def __init__(self, limit: int) -> None:
        self.waiting: deque[Event] = deque(maxlen=limit)
        self.news = asyncio.Event()
        self._has_lost = False

    def take(self, event: Event) -> bool:
        """Whether an older event had to go for it."""
        is_full = len(self.waiting) == self.waiting.maxlen
        if is_full and not self._has_lost:
            log.warning("a client of pod events reads too slowly; the oldest are dropped", waiting=len(self.waiting))
            self._has_lost = True
        elif not self.waiting:  # it has caught up: what is lost from now on is told again
            self._has_lost = False
        self.waiting.append(event)
        self.news.set()
        return is_full
