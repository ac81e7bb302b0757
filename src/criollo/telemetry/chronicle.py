"""What happened to each pod and container, in bounded memory: for `crio explain`.

    made, moved, gone     by `pods.history`, for each change of a record
    begun, ended          by `telemetry.trail`, for each job: it is told with the records that it makes, and with its namesake

Of a removed one everything is kept for an hour. Work that has ended is kept as compact JSON, some 500 bytes a job; all together
never takes more than `MAX_BYTES`: then the oldest removed go first, then the oldest work of the others.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from criollo.telemetry.told import Move, WorkTold, bounded, tell
from criollo.telemetry.trail import CALL, Trail, current

KEPT_S: Final = 3600.0
MAX_BYTES: Final = 4 << 20
WORKS, MOVES = 16, 24  # of one pod or container
_STORY_BYTES: Final = 900  # what one costs beside its texts
_EACH: Final = 48  # of a move or a job, beside its text


class Subject(NamedTuple):
    """Who it is about. `title` is the name that people use: `namespace/name` of a pod."""

    id: str
    kind: str
    name: str
    title: str
    pod_id: str


class Story:
    """All that is remembered of one. `gone_at` is in monotonic seconds, 0 while it exists."""

    __slots__ = ("gone_at", "live", "moves", "past", "size", "subject")

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.moves: list[Move] = []  # lists, because an empty deque has 0.7 KiB
        self.past: list[bytes] = []
        self.live: list[Trail] = []
        self.gone_at = 0.0
        self.size = _STORY_BYTES

    def works(self) -> list[WorkTold]:
        """In the order of their beginning."""
        told = [_decoder.decode(raw) for raw in self.past] + [tell(trail) for trail in self.live]
        return sorted(told, key=lambda work: work.begun_ns)


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(WorkTold)


class Chronicle:
    """The stories. A `trail.Listener`."""

    def __init__(self, *, limit_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit_bytes, clock
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._gone: OrderedDict[str, float] = OrderedDict()
        self.size = 0

    def know(self, subject: Subject) -> Story:
        """Begin a story, if there is none yet."""
        story = self._stories.get(subject.id)
        if story is None:
            story = self._stories[subject.id] = Story(subject)
            self.size += story.size
        return story

    def made(self, subject: Subject) -> None:
        """It has a record now, which the work at hand has made."""
        story = self.know(subject)
        self._attach(story, current())
        self.moved(subject.id, "CREATING")

    def moved(self, record_id: str, state: str, text: str = "") -> None:
        story = self._stories.get(record_id)
        if story is None:
            return
        move = Move(time.time_ns(), state, bounded(text))
        if len(story.moves) == MOVES:
            self._count(story, -_size(story.moves.pop(0)))
        story.moves.append(move)
        self._count(story, _size(move))
        self._make_room()

    def gone(self, record_id: str) -> None:
        story = self._stories.get(record_id)
        if story is not None:
            self.moved(record_id, "REMOVED")
            story.gone_at = self._clock()
            self._gone[record_id] = story.gone_at
            self._make_room()

    def begun(self, trail: Trail) -> None:
        story = self._stories.get(trail.name)
        if story is not None:
            self._attach(story, trail)

    def ended(self, trail: Trail) -> None:
        concerned = [self._stories[each] for each in trail.subjects if each in self._stories]
        if not concerned:
            return
        raw = _encoder.encode(tell(trail))
        for story in concerned:
            story.live.remove(trail)
            story.past.append(raw)
            self._count(story, len(raw) + _EACH)
            if len(story.past) > WORKS:
                self._count(story, -len(story.past.pop(1)) - _EACH)  # the first tells how it was made
        self._make_room()

    def find(self, words: str) -> list[Story]:
        """Those that an id, the beginning of one or a name means; the newest last, removed ones before others."""
        self._make_room()
        stories = list(self._stories.values())
        exact = [story for story in stories if words == story.subject.id]
        named = [story for story in stories if words in _names(story.subject)]
        begun = [story for story in stories if story.subject.id.startswith(words)]
        return sorted(exact or named or begun, key=lambda story: not story.gone_at)

    def of_pod(self, pod_id: str) -> list[Story]:
        """Its containers."""
        return [story for story in self._stories.values() if story.subject.pod_id == pod_id]

    def __len__(self) -> int:
        return len(self._stories)

    def _attach(self, story: Story, trail: Trail | None) -> None:
        if trail is not None and trail.kind != CALL and trail not in story.live:
            story.live.append(trail)
            trail.subjects.append(story.subject.id)

    def _count(self, story: Story, more: int) -> None:
        story.size += more
        self.size += more

    def _make_room(self) -> None:
        expired = self._clock() - KEPT_S
        while self._gone and next(iter(self._gone.values())) < expired:
            self._forget(next(iter(self._gone)))
        while self.size > self._limit and self._gone:
            self._forget(next(iter(self._gone)))
        if self.size > self._limit:
            self._shorten()

    def _forget(self, record_id: str) -> None:
        del self._gone[record_id]
        self.size -= self._stories.pop(record_id).size

    def _shorten(self) -> None:
        """Down to three quarters of the limit: of those that exist, first the work of the oldest, then their stories."""
        goal = self._limit * 3 // 4
        for story in self._stories.values():
            if self.size <= goal:
                return
            self._count(story, -sum(len(raw) + _EACH for raw in story.past))
            story.past.clear()
        for record_id in list(self._stories):
            if self.size <= goal:
                return
            self.size -= self._stories.pop(record_id).size


def _size(move: Move) -> int:
    return len(move.text) + _EACH


def _names(subject: Subject) -> Sequence[str]:
    return (subject.name, subject.title, subject.title.rpartition("/")[2])
