"""Bytes on their way between a client and a process: ends that wait for each other, so nothing piles up in between.

    FdReader(pipe) ──copy──▶ Writer of a client's stream            Reader of a client's stream ──copy──▶ FdWriter(pipe)

A `Writer` returns when it can take more; a `Reader` takes from its source only when asked. So a slow reader holds back its
own source and nobody else, and a copy holds one chunk. Descriptors are non-blocking; nothing here starts a task or a thread.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol

CHUNK_BYTES: Final = 256 << 10
_FAIR_BYTES: Final = 1 << 20  # a copy that never has to wait lets others run after so many bytes


class Reader(Protocol):
    """Where bytes come from."""

    async def read(self) -> bytes:
        """The next bytes, as many as are there; empty at the end, and then again. Raises ConnectionError: the peer is gone."""
        ...


class Writer(Protocol):
    """Where bytes go."""

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises ConnectionError: nobody takes them any more."""
        ...

    async def close(self) -> None:
        """Say that no more comes; what was written still arrives. May be repeated."""
        ...


class Size(NamedTuple):
    """Of a terminal, in characters."""

    rows: int
    columns: int


class Streams(NamedTuple):
    """What a client opened for an exec or attach; None: it did not ask for that one. With a terminal `stderr` is None.

    Who serves the client cancels whoever uses these when the client goes away.
    """

    stdin: Reader | None = None
    stdout: Writer | None = None
    stderr: Writer | None = None
    sizes: AsyncIterator[Size] | None = None


class FdReader:
    """Reads a pipe, socket or terminal that it owns."""

    def __init__(self, fd: int, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        os.set_blocking(fd, False)
        self._fd, self._chunk_bytes = fd, chunk_bytes

    async def read(self) -> bytes:
        while self._fd >= 0:
            try:
                return os.read(self._fd, self._chunk_bytes)
            except BlockingIOError:
                await _ready(self._fd, write=False)
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal whose last process has gone: pty(7)
                    return b""
                raise
        return b""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FdWriter:
    """Writes a pipe, socket or terminal that it owns."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if self._fd < 0:
                raise BrokenPipeError(errno.EPIPE, "closed")
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                await _ready(self._fd, write=True)

    async def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


async def copy(reader: Reader, writer: Writer) -> None:
    """Pass on everything until the reader's end. The writer is left open. Raises what either raises."""
    in_one_go = 0
    while data := await reader.read():
        await writer.write(data)
        in_one_go += len(data)
        if in_one_go >= _FAIR_BYTES:
            in_one_go = 0
            await asyncio.sleep(0)


async def _ready(fd: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, tell)
    try:
        await ready
    finally:
        remove(fd)
