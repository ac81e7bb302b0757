"""A container's log file, read as it is written: from the beginning or the last lines, across rotation, to the end.

Rotation renames the file, then the monitor opens a new one under the old name; what was read before belongs to the old
file, and is read to its end before the next one is opened. Whoever reads our output may take his time, and the log be rotated
more than once meanwhile: the next one is the first of those that begin later than ours, by the times in them. Kubelets
compress all rotated ones but the last. A file that got shorter is read anew.
"""

import asyncio
import contextlib
import gzip
import os
import re
import stat
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from criollo.errors import CriolloError, NotFound, from_os
from criollo.linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from criollo.wire.crilog import LogEntry, LogReader, format_entry, parse

POLL_S: Final = 0.2  # file systems without inotify, and ends of containers
ASK_S: Final = 0.1  # the end is not asked for more often
_CHUNK: Final = 64 << 10
_HEAD_BYTES: Final = 4096  # what surely holds the time of the first entry, also compressed
_ROTATED: Final = r"\.[0-9-]+(?:\.gz)?"  # what kubelets append: a time, and what they do to it later
_GZIP: Final = b"\x1f\x8b"

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
            if replaced and source.open_next():
                reader = LogReader()
            elif over:
                return
            else:
                await notices.wait()


class _Source:
    """The open file, and whether its name still means it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = _opened(path)
        except FileNotFoundError:
            raise NotFound("log", str(path), "its file was removed") from None

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def open_next(self) -> bool:
        """Open the file after ours in its place; False when there is none, in the midst of a rotation."""
        found: list[int] = []
        try:
            with contextlib.suppress(FileNotFoundError):
                found.append(_opened(self._path))
            fallback = found[:1]
            for path in self._rotated():  # after the name was opened: what lost it meanwhile is among them
                with contextlib.suppress(FileNotFoundError, CriolloError):
                    found.append(_opened(path))
            chosen = self._first_after_ours(found) or fallback
            if chosen:
                found.remove(chosen[0])
                found.append(self._fd)
                self._fd = chosen[0]
        finally:
            for fd in found:
                os.close(fd)
        return bool(chosen)

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
        if os.pread(self._fd, len(_GZIP), 0) == _GZIP:
            yield from _inflated(self._fd)
            return
        while data := os.read(self._fd, _CHUNK):
            yield data

    def _rotated(self) -> list[Path]:
        """Files that had the name before."""
        try:
            names = os.listdir(self._path.parent)
        except OSError:
            return []
        ours = re.compile(re.escape(self._path.name) + _ROTATED)
        return [self._path.with_name(name) for name in names if ours.fullmatch(name)]

    def _first_after_ours(self, fds: Sequence[int]) -> list[int]:
        """Of the files that begin later than ours the first; empty when there is none, or ours has no beginning."""
        ours = _begin_ns(self._fd)
        if ours is None:
            return []
        later = [(begin, fd) for fd in fds if (begin := _begin_ns(fd)) is not None and begin > ours]
        return [fd for _, fd in sorted(later)[:1]]


def _opened(path: Path) -> int:
    """A log file, open. Raises FileNotFoundError; CriolloError when it cannot be read, or is no regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise from_os(error, f"cannot read log {path}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CriolloError(f"cannot read log {path}: it is no regular file")
    return fd


def _begin_ns(fd: int) -> int | None:
    """The time of a file's first entry; None when it has none."""
    head = os.pread(fd, _HEAD_BYTES, 0)
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        except zlib.error:
            return None
    entry = parse(head.split(b"\n", 1)[0])
    return entry.at_ns if entry is not None else None


def _inflated(fd: int) -> Iterator[bytes]:
    """What a compressed file holds, of a damaged one as much as can be had."""
    damage = contextlib.suppress(EOFError, OSError, zlib.error)
    with open(fd, "rb", closefd=False) as raw, gzip.GzipFile(fileobj=raw) as file, damage:
        while data := file.read1(_CHUNK):
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
