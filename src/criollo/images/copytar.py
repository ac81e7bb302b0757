"""The members of an archive, read where they are: nothing is unpacked.

A plain tar stays as it is; a compressed one is first inflated into a file without a name. Only regular files and links among
them are known, by their whole names; the last of a name counts. The tar is parsed as layers are (`workers.tar`).
"""

import contextlib
import os
import posixpath
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Damaged, Exhausted, Invalid, NotFound, explain
from criollo.images.copyparts import Part, write_all
from criollo.images.layout import broken_off
from criollo.images.workplace import anonymous, open_nameless
from criollo.oci.image_spec import MAX_BLOB_BYTES
from criollo.workers.inflate import read_plain
from criollo.workers.tar import BLOCK, FILE, LINK, SYMLINK, Entry, Parser

_PIECE_BYTES: Final = 64 << 10
_MAX_ENTRIES: Final = 200_000
_MAX_NAMES_BYTES: Final = 32 << 20  # of all names and links together
_MAX_BYTES: Final = 4 * MAX_BLOB_BYTES  # of an archive, inflated
_MAX_LINKS: Final = 8  # that lead to each other
_MAGIC: Final = slice(257, 262)  # of a ustar, pax or GNU header; an older tar is copied as if it were compressed


class ArchiveParts:
    """Members of a tar in an open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._files: dict[str, tuple[int, int]] = {}  # where content begins, and its size
        self._links: dict[str, str] = {}
        self._names_left = _MAX_NAMES_BYTES

    @contextmanager
    def opened(self, name: str) -> Iterator[Part]:
        """Blocking. Raises NotFound."""
        found = _normal(name.encode("utf-8", "surrogateescape"))
        for _ in range(_MAX_LINKS):
            if found in self._files:
                yield Part(self._fd, *self._files[found])
                return
            if found not in self._links:
                break
            found = self._links[found]
        raise NotFound("blob", name, "the archive has no such file; make it again")

    def look(self) -> None:
        """Find the members: headers are read, large content is passed over. Blocking.

        Raises:
            Damaged: it is no tar, or broken off.
            Exhausted: it has more than is taken.
        """
        size, parser, at = os.fstat(self._fd).st_size, Parser(max_entries=_MAX_ENTRIES), 0
        while chunk := os.pread(self._fd, _PIECE_BYTES, at):
            large, here = None, 0  # an entry whose content goes on behind this chunk, and what of it is in it
            for event in parser.feed(chunk):
                if not isinstance(event, Entry):
                    here += len(event)
                elif event.body is None:
                    large = event
                else:
                    self._note(event, at + parser.spans[-1][0] if event.stored else 0)
            at += len(chunk)
            if large is not None:
                self._note(large, at - here)
                parser.pass_over(large.stored - here)
                at += large.stored - here
        if at > size:
            raise Damaged("cannot read the archive: it is broken off; make it again")
        parser.close()

    def _note(self, entry: Entry, start: int) -> None:
        name = _normal(entry.name)
        self._names_left -= len(entry.name) + len(entry.link)
        if self._names_left < 0:
            raise Exhausted(f"cannot read the archive: its names have over {_MAX_NAMES_BYTES} bytes, the limit")
        self._files.pop(name, None)
        self._links.pop(name, None)
        if entry.kind == FILE and entry.sparse is None:
            self._files[name] = (start, entry.stored)
        elif entry.kind == SYMLINK:
            self._links[name] = _normal(
                entry.link if entry.link[:1] == b"/" else os.path.dirname(entry.name) + b"/" + entry.link
            )
        elif entry.kind == LINK:
            self._links[name] = _normal(entry.link)


@asynccontextmanager
async def opened_archive(path: Path, scratch: Path) -> AsyncIterator[ArchiveParts]:
    """The members of the archive at `path`; `scratch` is where a compressed one is inflated.

    Raises:
        Invalid: no such file.
        Damaged: it is no tar, or broken off.
        Exhausted: the disk is full, or it is beyond the limits.
    """
    with contextlib.ExitStack() as opened:
        with explain(f"read {path}"):
            fd = _closed_by(opened, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Invalid("source", str(path), "an archive, which is a file; oci: and dir: are for directories")
            try:
                if os.pread(fd, BLOCK, 0)[_MAGIC] != b"ustar":
                    plain = _closed_by(opened, await threads.descriptor(lambda: scratch_file(scratch)))
                    await _inflated(fd, plain)
                    fd = plain
                parts = ArchiveParts(fd)
                await threads.files(parts.look)
            except Damaged as error:
                raise broken_off(path, "image archive", error) from error
        yield parts


def scratch_file(directory: Path) -> int:
    """A file without a name, or whose name nobody sees. Blocking. Raises HostFailed, Exhausted."""
    fd = open_nameless(directory)
    if fd is not None:
        return fd
    with anonymous(directory) as file:
        return os.dup(file.fileno())


async def _inflated(source_fd: int, sink_fd: int, limit_bytes: int = _MAX_BYTES) -> None:
    stopped = threading.Event()

    def work() -> None:
        left = limit_bytes
        for piece in read_plain(source_fd, "auto"):
            left -= len(piece)
            if left < 0:
                raise Exhausted(f"cannot read the archive: it has over {limit_bytes} bytes, the limit")
            if stopped.is_set():
                return
            write_all(sink_fd, piece)

    await threads.interruptible_transfer(work, stopped.set)


def _closed_by(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _normal(name: bytes) -> str:
    """A name as a path from the archive's root, which nothing leads out of."""
    return posixpath.normpath("/" + name.decode("utf-8", "surrogateescape")).lstrip("/")
