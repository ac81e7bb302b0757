"""Log lines that may be due many times a second: for whom the disk of the journal is no queue."""

import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0


class Seldom:
    """Says when such a line is to be written: the first time, and then once in `every_s` for all the times since."""

    __slots__ = ("_clock", "_every_s", "_times", "_told_at")

    def __init__(self, every_s: float = EVERY_S, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._times, self._told_at = 0, float("-inf")

    def due(self) -> int:
        """Count once more; how often it has been due since the line was written last, or 0: not now."""
        self._times += 1
        now = self._clock()
        if now - self._told_at < self._every_s:
            return 0
        times, self._times, self._told_at = self._times, 0, now
        return times
