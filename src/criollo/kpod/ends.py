"""Our own standard streams as ends of a copy that never hold up the loop.

Pipes and terminals are opened a second time, because making the descriptor we were given non-blocking would do so for
everybody who shares it: the shell, and what runs after us. Files are duplicated, so that their position stays shared. What
cannot be opened again (a socket, another user's terminal) is made non-blocking for as long as it is used.
"""

import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final

from criollo.aio.streams import FdReader, FdWriter

INPUT: Final = 0
OUTPUT: Final = 1
ERRORS: Final = 2


@contextlib.asynccontextmanager
async def standard_input() -> AsyncIterator[FdReader]:
    """Standard input; empty when there is none."""
    with _opened(INPUT, os.O_RDONLY) as fd:
        reader = FdReader(fd)
        try:
            yield reader
        finally:
            reader.close()


@contextlib.asynccontextmanager
async def standard_output() -> AsyncIterator[FdWriter]:
    """Standard output. A reader that has gone is a BrokenPipeError."""
    async with _writer(OUTPUT) as writer:
        yield writer


@contextlib.asynccontextmanager
async def standard_error() -> AsyncIterator[FdWriter]:
    """Standard error."""
    async with _writer(ERRORS) as writer:
        yield writer


@contextlib.asynccontextmanager
async def _writer(number: int) -> AsyncIterator[FdWriter]:
    for printed in (sys.stdout, sys.stderr):
        if printed is not None:
            printed.flush()  # what was printed before comes before
    with _opened(number, os.O_WRONLY) as fd:
        writer = FdWriter(fd)
        try:
            yield writer
        finally:
            await writer.close()


@contextlib.contextmanager
def _opened(number: int, flags: int) -> Iterator[int]:
    """A descriptor of our own; whoever takes it closes it."""
    fd = _again(number, flags)
    if fd is not None:
        yield fd
        return
    was_blocking = os.get_blocking(number)
    try:
        yield os.dup(number)
    finally:
        with contextlib.suppress(OSError):
            os.set_blocking(number, was_blocking)


def _again(number: int, flags: int) -> int | None:
    """The same pipe or terminal, opened anew; None where that cannot be."""
    if (sys.__stdin__, sys.__stdout__, sys.__stderr__)[number] is None:  # closed before we began: the number is another's
        return os.open(os.devnull, flags | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(number).st_mode)
    if kind not in (stat.S_IFIFO, stat.S_IFCHR):
        return None
    try:
        return os.open(f"/proc/self/fd/{number}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
