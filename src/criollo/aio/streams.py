"""Bytes on their way between a client and a process: ends that wait for each other, so nothing piles up in between.

    FdReader(pipe) ──copy──▶ Writer of a client's stream            Reader of a client's stream ──copy──▶ FdWriter(pipe)

A `Writer` returns when it can take more; a `Reader` takes from its source only when asked. So a slow reader holds back its
own source and nobody else, and a copy holds one chunk. Descriptors are non-blocking; nothing here starts a task or a thread.
"""

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple, Protocol

CHUNK_BYTES: Final = 256 << 10
_FAIR_BYTES: Final = 1 << 20  # a copy that never has to wait lets others run after so many bytes
_READ_BYTES: Final = 1 << 16  # what a pipe holds
_DRAIN_ROUNDS: Final = 256  # what a stranger goes on writing is not waited for
_PAUSE_S: Final = 0.001
_SMALL_BYTES: Final = 64 << 10
_TRICKLE_BYTES: Final = 16 << 10  # less than this after a pause is no flood
_FLOOD_READS, _FLOOD_S = 16, 0.01  # so many small pieces in so short a time are one


class Reader(Protocol):
    """Where bytes come from."""

    async def read(self) -> bytes:
        """The next bytes, as many as are there; empty at the end, and then again. Raises ConnectionError: the peer is gone."""
        ...


class Source(Reader, Protocol):
    """Where a client's bytes come from."""

    def drop(self) -> None:
        """Nobody reads this any more: what waits and what comes is passed over, so it holds back nobody. May be repeated."""
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

    stdin: Source | None = None
    stdout: Writer | None = None
    stderr: Writer | None = None
    sizes: AsyncIterator[Size] | None = None


class FdReader:
    """Reads a pipe, socket or terminal that it owns.

    `is_roomy`: what is not read at once finds room. Then a flood of small writes is read once a millisecond: each read
    wakes the writer, and that costs both of them more than the bytes.
    """

    def __init__(self, fd: int, *, chunk_bytes: int = CHUNK_BYTES, is_roomy: bool = False) -> None:
        os.set_blocking(fd, False)
        self._fd, self._chunk_bytes = fd, chunk_bytes
        self._pace = _Pace() if is_roomy else None
        self._left: int | None = None  # how much may still be read; None: until the end
        self._quiet_s = 0.0
        self._is_over: Callable[[], bool] = _always
        self._waiting: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        if self._pace is not None and self._pace.is_flood:
            await asyncio.sleep(_PAUSE_S)
        while self._fd >= 0 and self._left != 0:
            try:
                data = os.read(self._fd, self._chunk_bytes if self._left is None else min(self._left, self._chunk_bytes))
            except BlockingIOError:
                if not await self._wait():
                    return b""
                continue
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal whose last process has gone: pty(7)
                    return b""
                raise
            if self._left is not None:
                self._left -= len(data)
            elif self._pace is not None:
                self._pace.note(len(data))
            return data
        return b""

    def finish(self, *, more_bytes: int = 0, quiet_s: float = 0, is_over: Callable[[], bool] | None = None) -> None:
        """End with what is there now, whoever still holds the other end and goes on writing.

        `more_bytes`: somebody in between may still bring so much; it has come when nothing came for `quiet_s`, and `is_over`
        says so, too.
        """
        if self._fd >= 0 and self._left is None:
            import termios  # a constant among 240 that a daemon without sessions has no use for

            there = array.array("i", [0])
            fcntl.ioctl(self._fd, termios.FIONREAD, there)
            self._left, self._quiet_s, self._is_over = there[0] + more_bytes, quiet_s, is_over or _always
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(None)

    def close(self) -> None:
        """Not while somebody waits in `read`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _wait(self) -> bool:
        """Until there is something to read; False when nothing will be."""
        if self._left is not None and not self._quiet_s:
            return False
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(None if self._left is None else self._quiet_s):
                await _ready(self._fd, self._waiting, write=False)
        except TimeoutError:
            return not self._is_over()
        finally:
            self._waiting = None
        return True


def _always() -> bool:
    return True


class _Pace:
    """Whether many small pieces come in so fast that it is better to let them gather."""

    def __init__(self) -> None:
        self.is_flood = False
        self._small, self._since = 0, 0.0

    def note(self, size_bytes: int) -> None:
        """After each read."""
        if self.is_flood:
            self.is_flood = _TRICKLE_BYTES < size_bytes < CHUNK_BYTES
        elif size_bytes < _SMALL_BYTES:
            self._small += 1
            if self._small >= _FLOOD_READS:
                now = time.monotonic()
                self.is_flood, self._small, self._since = now - self._since < _FLOOD_S, 0, now


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
                await _ready(self._fd, asyncio.get_running_loop().create_future(), write=True)

    async def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


class ByteBudget:
    """Bytes that several pipes may hold together."""

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes


class BoundedPipe:
    """Reads a pipe on the loop and keeps up to a limit; what comes beyond is read, dropped and counted.

    So whoever writes is never held back. The descriptor stays its owner's, who closes it after `close`.
    """

    def __init__(self, fd: int, limit_bytes: int, *, budget: ByteBudget | None = None) -> None:
        self.dropped_bytes = 0
        self._fd, self._limit_bytes, self._budget = fd, limit_bytes, budget
        self._kept = bytearray()  # not a list of pieces: of single bytes it would take many times the limit
        self._is_listening = True
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def content(self) -> bytes:
        return bytes(self._kept)

    def close(self) -> None:
        """Take what is already in the pipe, then let go of it and of the budget; `content` stays. May be repeated."""
        rounds = _DRAIN_ROUNDS
        while self._is_listening and rounds and self._read():
            rounds -= 1
        self._stop()
        if self._budget is not None:
            self._budget.left_bytes += len(self._kept)
            self._budget = None

    def _read(self) -> bool:
        try:
            chunk = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._stop()
            return False
        room_bytes = self._limit_bytes - len(self._kept)
        if self._budget is not None:
            room_bytes = min(room_bytes, self._budget.left_bytes)
            self._budget.left_bytes -= min(room_bytes, len(chunk))
        self._kept += chunk if len(chunk) <= room_bytes else chunk[:room_bytes]
        self.dropped_bytes += max(0, len(chunk) - room_bytes)
        return True

    def _stop(self) -> None:
        if self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._fd)


async def copy(reader: Reader, writer: Writer) -> None:
    """Pass on everything until the reader's end. The writer is left open. Raises what either raises."""
    in_one_go = 0
    while data := await reader.read():
        await writer.write(data)
        in_one_go += len(data)
        if in_one_go >= _FAIR_BYTES:
            in_one_go = 0
            await asyncio.sleep(0)


async def readable(fd: int) -> None:
    """Return when there is something to read, or the end."""
    await _ready(fd, asyncio.get_running_loop().create_future(), write=False)


async def _ready(fd: int, ready: asyncio.Future[None], *, write: bool) -> None:
    loop = asyncio.get_running_loop()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, tell)
    try:
        await ready
    finally:
        remove(fd)
