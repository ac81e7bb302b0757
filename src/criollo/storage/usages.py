"""What writable layers take, without anybody waiting for it: measured beside, told from memory.

Whoever asks gets the last measurement, and so starts the next one where it has grown old. Only a layer that was never
looked at is waited for, for a moment. Measuring is done in one thread that takes the disk only when nobody else wants it; one
that hangs in a file system is left behind, and the others go on in another. Layers that take long are measured so seldom that
all of it stays below a few hundredths of a processor.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.background import Background
from criollo.errors import CriolloError
from criollo.linux import libc
from criollo.storage.base import Usage
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

LASTS_S: Final = 10.0
GRACE_S: Final = 0.03  # for a layer that was never looked at
STALL_S: Final = 10.0
RETRY_S: Final = 300.0  # of one that did not answer
_QUICK_S: Final = 0.002
_SHARE: Final = 50  # slow ones take this part of the time, all together
_TURN_S: Final = 0.2
_MOST_LOST: Final = 4


class Measured(NamedTuple):
    """What a writable layer took at a time (ns since the epoch)."""

    usage: Usage
    at_ns: int


class _Layer:
    __slots__ = ("due", "is_waiting", "measured", "took_s")

    def __init__(self) -> None:
        self.measured: Measured | None = None
        self.due = 0.0
        self.took_s = 0.0
        self.is_waiting = False


class Usages:
    """Measures by `measure`, which blocks and takes the id of a container; `tasks` owns the work."""

    def __init__(self, measure: Callable[[str], Usage], tasks: Background, *, stall_s: float = STALL_S) -> None:
        self._measure, self._tasks, self._stall_s = measure, tasks, stall_s
        self._layers: dict[str, _Layer] = {}
        self._waiting: deque[str] = deque()
        self._found: deque[tuple[str, Usage | None, float]] = deque()  # filled by threads
        self._lost: set[str] = set()
        self._current = ""
        self._turn = object()
        self._taking = threading.Lock()  # whose turn it is, and what is taken in it
        self._rest: asyncio.Event | None = None

    async def known(self, container_ids: Sequence[str], *, fresh: bool = False) -> list[Measured | None]:
        """The last measurement of each, in order; None before the first. `fresh` measures anew what is measured quickly."""
        self._note_found()
        now, is_new = time.monotonic(), fresh
        for container_id in container_ids:
            layer = self._layers.get(container_id)
            if layer is None:
                layer, is_new = self._layers.setdefault(container_id, _Layer()), True
            is_due = layer.due <= now or (fresh and layer.took_s < GRACE_S and container_id not in self._lost)
            if is_due and not layer.is_waiting:
                layer.is_waiting = True
                self._waiting.append(container_id)
        if self._waiting and self._rest is None:
            self._rest = asyncio.Event()
            self._tasks.start(self._run(self._rest), name="measure writable layers")
        if is_new and self._rest is not None:
            await self._wait_a_moment(self._rest)
        return [layer.measured if (layer := self._layers.get(each)) else None for each in container_ids]

    def forget(self, container_id: str) -> None:
        """Drop what is known of a layer that is no more."""
        self._layers.pop(container_id, None)

    async def _wait_a_moment(self, rest: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                await rest.wait()
        except TimeoutError:
            self._note_found()

    async def _run(self, rest: asyncio.Event) -> None:
        try:
            while self._waiting and len(self._lost) < _MOST_LOST:
                turn = self._next_turn()
                self._current = ""
                try:
                    await threads.forsaken(self._stall_s, self._work, turn)
                except TimeoutError:
                    self._next_turn()  # who was left behind takes nothing more
                    if self._current:
                        self._give_up(self._current)
                finally:
                    self._next_turn()
                self._note_found()
        finally:
            self._rest = None
            rest.set()

    def _next_turn(self) -> object:
        with self._taking:
            self._turn = object()
            return self._turn

    def _take(self, turn: object) -> str | None:
        with self._taking:
            if self._turn is not turn or not self._waiting:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _work(self, turn: object) -> None:
        """Measure what waits, for a while; ends after its layer when it was left behind."""
        try:
            libc.set_idle_io()
        except OSError:
            log.debug("no idle class for disk accesses here")
        deadline = time.monotonic() + _TURN_S
        while time.monotonic() < deadline and (container_id := self._take(turn)) is not None:
            begun = time.monotonic()
            try:
                usage: Usage | None = self._measure(container_id)
            except (OSError, CriolloError) as error:
                log.warning("writable layer not measured", container=container_id, cause=error)
                usage = None
            self._found.append((container_id, usage, time.monotonic() - begun))

    def _give_up(self, container_id: str) -> None:
        self._lost.add(container_id)
        if layer := self._layers.get(container_id):
            layer.is_waiting, layer.due = False, time.monotonic() + RETRY_S
        log.warning("a writable layer cannot be measured: its file system does not answer", container=container_id)

    def _note_found(self) -> None:
        while self._found:
            container_id, usage, took_s = self._found.popleft()
            self._lost.discard(container_id)
            layer = self._layers.get(container_id)
            if layer is None:
                continue
            layer.is_waiting, layer.took_s = False, took_s
            if usage is not None:
                layer.measured = Measured(usage, time.time_ns())
            lasts_s = LASTS_S if took_s < _QUICK_S else max(LASTS_S, _SHARE * self._slow_s())
            layer.due = time.monotonic() + lasts_s

    def _slow_s(self) -> float:
        return sum(layer.took_s for layer in self._layers.values() if layer.took_s >= _QUICK_S)
