"""Tells unpacking workers, through a descriptor, whether there are processors that nobody works on.

Two processors per layer are more than one needs, so there are some while at most half as many layers as processors are being
unpacked. What else the node does is not asked: the second thread of a worker costs little where it is of no use.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Final

SETTLE_S: Final = 0.02  # layers of one image begin one after the other


class Spare:
    """The layers being unpacked now, and an eventfd that can be read while processors are idle."""

    def __init__(self, processors: int = 0) -> None:
        """`processors`: how many there are, 0 for those that this process may use."""
        self._most = (processors or len(os.sched_getaffinity(0))) // 2
        self._layers = 0
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def counted(self) -> Iterator[int]:
        """One layer more, for a block; the descriptor is for its worker."""
        if not self._layers:
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._count(1)
        try:
            yield self._fd
        finally:
            self._count(-1)
            if not self._layers:
                os.close(self._fd)

    def _count(self, change: int) -> None:
        self._layers += change
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if 0 < self._layers <= self._most:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._say)
        else:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)

    def _say(self) -> None:
        self._timer = None
        with contextlib.suppress(BlockingIOError):  # whatever a worker wrote there
            os.eventfd_write(self._fd, 1)
