"""A blob on its way from its source to its target: into a file as it comes, or through a pipe with a reader at its end.

    Pour        writes a blob into a descriptor; ends well only when every byte was there and the digest was right
    through     the same for a target that is no file; the reader finishes nothing before the pipe says that it was right

Nothing is held but the pipe and a piece. What a pour that failed has written is worthless: whoever takes it drops it.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from criollo.aio.together import together
from criollo.errors import Unavailable, explain

Pour = Callable[[int], Awaitable[None]]


class Anew(Unavailable):
    """What has gone over is lost, for a reason that may pass: the blob may be begun again."""


class Pipe:
    """What a pour writes, for its reader."""

    def __init__(self, source_fd: int, sink_fd: int) -> None:
        self.source_fd, self.sink_fd = source_fd, sink_fd
        self.was_right = False  # for good when `source_fd` is at its end

    def close_source(self) -> None:
        if self.source_fd >= 0:
            os.close(self.source_fd)
            self.source_fd = -1

    def close_sink(self) -> None:
        if self.sink_fd >= 0:
            os.close(self.sink_fd)
            self.sink_fd = -1


async def through(pour: Pour, take: Callable[[Pipe], Coroutine[Any, Any, None]]) -> None:
    """Let `take` read what `pour` writes, and end when both have.

    Raises:
        what either raises; of both the first, since the other one is its consequence.
    """
    with _opened() as pipe:
        await together([_pouring(pour, pipe), _taking(take, pipe)])


async def _pouring(pour: Pour, pipe: Pipe) -> None:
    try:
        await pour(pipe.sink_fd)
        pipe.was_right = True
    finally:
        pipe.close_sink()


async def _taking(take: Callable[[Pipe], Coroutine[Any, Any, None]], pipe: Pipe) -> None:
    try:
        await take(pipe)
    finally:
        pipe.close_source()  # who still writes hears that nobody reads


@contextlib.contextmanager
def _opened() -> Iterator[Pipe]:
    with explain("open a pipe"):
        pipe = Pipe(*os.pipe2(os.O_CLOEXEC))
    try:
        yield pipe
    finally:
        pipe.close_source()
        pipe.close_sink()
