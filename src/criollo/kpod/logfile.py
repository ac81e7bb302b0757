"""A container's log file, read as it is written: from the beginning or the last lines, across rotation, to the end.

Rotation renames the file, then the monitor opens a new one under the old name; what was read before belongs to the old
file, and is read to its end before the new one is opened. A file that got shorter is read anew.
"""

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Final

from criollo.errors import CriolloError, NotFound, explain
from criollo.linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from criollo.wire.crilog import LogEntry, LogReader, format_entry, parse

POLL_S: Final = 0.2  # file systems without inotify, and ends of containers
ASK_S: Final = 0.1  # the end is not asked for more often
_CHUNK: Final = 64 << 10

Ended = Callable[[], Awaitable[bool]]
"""Whether the writer has ended, so that the file is complete."""


async def entries(path: Path, *, tail: int | None = None, ended: Ended | None = None) -> AsyncGenerator[LogEntry, None]:
    """The entries of a log; with `ended` those to come as well, until it says so.

    `tail` begins at the last lines, counted as programs write them, not as pieces of the file.

    Raises:
        NotFound: there is no file.
    """
    with _Source(path) as source, contextlib.closing(_Notices(path.parent if ended else None)) as notices:
        source.skip_to(tail)
        reader, over, asked = LogReader(), ended is None, 0.0
        while True:
            if ended is not None and time.monotonic() - asked >= ASK_S:
                over, asked = await ended(), time.monotonic()
            replaced = source.is_replaced()  # before reading: then what is read is all of the old file
            for data in source.new_bytes():
                for entry in reader.receive(data):
                    yield entry
            if replaced:
                source.open()
                reader = LogReader()
            elif over:
                return
            else:
                await notices.wait()


class _Source:
    """The open file, and whether its name still means it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self.open()

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def open(self) -> None:
        """Open what the name means now, in place of what was open."""
        try:
            with explain(f"read log {self._path}"):
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except CriolloError:
            if not self._path.exists():
                raise NotFound("log", str(self._path), "its file was removed") from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise CriolloError(f"cannot read log {self._path}: it is no regular file")
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd

    def skip_to(self, tail: int | None) -> None:
        if tail is not None:
            os.lseek(self._fd, tail_start(self._fd, tail), os.SEEK_SET)

    def is_replaced(self) -> bool:
        """Whether there is another file now under the name; a name without a file is not another one yet."""
        ours = os.fstat(self._fd)
        if ours.st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            return True
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino)

    def new_bytes(self) -> Iterator[bytes]:
        """What was written since, in pieces."""
        while data := os.read(self._fd, _CHUNK):
            yield data


class _Notices:
    """Wakes when something happens in a directory, or after a while; without a directory it is never asked."""

    def __init__(self, directory: Path | None) -> None:
        self._woken = asyncio.Event()
        self._inotify: Inotify | None = None
        if directory is None:
            return
        with contextlib.suppress(OSError):  # no instance or watch is left: polling does as well
            self._inotify = Inotify()
            self._inotify.add(directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO)
        if self._inotify is not None:
            asyncio.get_running_loop().add_reader(self._inotify.fd, self._wake)

    async def wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._woken.wait()
        self._woken.clear()

    def close(self) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()

    def _wake(self) -> None:
        if self._inotify is not None:
            self._inotify.read()
        self._woken.set()


def tail_start(fd: int, lines: int) -> int:
    """The offset in a log file from which on there are `lines` whole lines of output; 0 when there are not so many.

    A line that was written in pieces counts once, at its last piece.
    """
    found = 0
    for offset, line in _backwards(fd):
        entry = parse(line)
        if entry is not None and not entry.partial:
            if found == lines:
                return offset + len(line) + 1
            found += 1
    return 0


def _backwards(fd: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their offsets, last one first, without their newlines."""
    at, rest = os.fstat(fd).st_size, b""
    while at > 0:
        step = min(_CHUNK, at)
        at -= step
        block = os.pread(fd, step, at) + rest
        rest, *lines = block.split(b"\n")
        offset = at + len(block)
        for line in reversed(lines):
            offset -= len(line)
            yield offset, line
            offset -= 1
    yield 0, rest


class Output:
    """Entries as the program wrote them: its standard output and error to ours."""

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], *, timestamps: bool = False) -> None:
        self._streams = {"stdout": stdout, "stderr": stderr}
        self._in_line: dict[str, bool] = {}
        self._timestamps = timestamps

    def write(self, entry: LogEntry) -> None:
        """Write one entry; pieces of a line are joined."""
        stream = self._streams[entry.stream]
        if self._timestamps and not self._in_line.get(entry.stream):
            stream.write(format_entry(entry).split(b" ", 1)[0].replace(b"+00:00", b"Z") + b" ")
        stream.write(entry.content if entry.partial else entry.content + b"\n")
        self._in_line[entry.stream] = entry.partial
        stream.flush()
