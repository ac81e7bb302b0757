"""A path of a live tree → a tar stream: what `kpod cp` reads, of a container in a worker, of the node in its own process.

The tree's owner may change it while it is read. What vanishes or is moved away is left out; a file that becomes shorter is
filled up with zeros and named among the `changed`, one that grows is cut; a directory is entered by descriptors, so a link
put in its place leads nowhere. Sockets are left out, and what is below directories in which the kernel shows itself.
Owners, modes, times, hard links and attributes of files and directories are kept (`workers.pack` has the format).
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from criollo.errors import Exhausted, HostFailed, explain
from criollo.linux import libc
from criollo.workers import live
from criollo.workers.ids import Ids
from criollo.workers.messages import MAX_ENTRIES
from criollo.workers.pack import KINDS, Member, header
from criollo.workers.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FILE,
    LINK,
    MAX_PATH_BYTES,
    SYMLINK,
    show_name,
)

MAX_TOLD: Final = 20

_READ_BYTES: Final = 1 << 18
_MAX_LINKS: Final = 1_000_000  # names remembered for hard links
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.EXDEV)  # the last: it was moved out of the tree
_KEPT: Final = ("user.", "security.capability", "system.posix_acl_")
_OVERLAYS: Final = "user.overlay."


class Collector:
    """Reads one path; `entries`, `size_bytes` and `changed` (names, the first few) tell of what was read."""

    def __init__(self, own: int, ids: Ids) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.changed: list[str] = []
        self._own, self._ids = own, ids
        self._links: dict[tuple[int, int], bytes] = {}

    def collect(self, path: bytes, *, name: bytes, follow: bool = False) -> Iterator[bytes]:
        """The tar of `path`, which is called `name` there; with `name` empty a directory's entries have no prefix.

        A link at the end of the path is itself, unless `follow` or the path ends in `/` or `/.`.

        Raises:
            HostFailed: it is not there, or the kernel refused.
        """
        with explain(f"copy {os.fsdecode(path)!r}"):
            fd = self._open(path, follow=follow)
            try:
                live.refuse_kernels(fd, path)
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    yield from self._tree(fd, name)
                else:
                    yield from self._one(fd, name)
                    if not self.entries:
                        raise HostFailed(f"cannot copy {os.fsdecode(path)!r}: it is a socket")
            finally:
                os.close(fd)
        yield bytes(2 * BLOCK)

    def _open(self, path: bytes, *, follow: bool) -> int:
        parent, base = live.split(path)
        if follow or not base:
            return live.anything(path)
        holder = live.directory(parent)
        try:
            return live.look(holder, base)
        finally:
            os.close(holder)

    def _tree(self, top: int, prefix: bytes) -> Iterator[bytes]:
        pending = [b""]
        while pending:
            below = pending.pop()
            try:
                fd = libc.openat2(top, below or b".", _DIRECTORY, resolve=live.NO_LINKS)
            except OSError as error:
                if below and error.errno in _GONE:
                    continue
                raise
            try:
                name = prefix + b"/" + below if prefix and below else prefix or below
                yield from self._header(name, DIRECTORY, os.fstat(fd), fd)
                if live.is_kernels(fd):
                    continue
                directories: list[bytes] = []
                for base in sorted(map(os.fsencode, os.listdir(fd))):
                    yield from self._child(fd, base, name, directories)
                pending += [below + b"/" + base if below else base for base in reversed(directories)]
            finally:
                os.close(fd)

    def _child(self, parent: int, base: bytes, above: bytes, directories: list[bytes]) -> Iterator[bytes]:
        try:
            fd = live.look(parent, base)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                directories.append(base)
            else:
                yield from self._one(fd, above + b"/" + base if above else base)
        finally:
            os.close(fd)

    def _one(self, fd: int, name: bytes) -> Iterator[bytes]:
        """What is no directory, looked at as `fd`."""
        status = os.fstat(fd)
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # a socket means nothing without its process
        if status.st_nlink > 1 and (first := self._first_name(status, name)) != name:
            yield from self._header(name, LINK, status, link=first)
        elif kind == FILE:
            if not live.is_kernels(fd):
                yield from self._file(fd, name)
        else:
            link = os.readlink(b"", dir_fd=fd) if kind == SYMLINK else b""
            yield from self._header(name, kind, status, link=link)

    def _first_name(self, status: os.stat_result, name: bytes) -> bytes:
        key = (status.st_dev, status.st_ino)
        if len(self._links) >= _MAX_LINKS:
            return self._links.get(key, name)
        return self._links.setdefault(key, name)

    def _file(self, looked: int, name: bytes) -> Iterator[bytes]:
        fd = live.again(self._own, looked, os.O_RDONLY)
        try:
            status = os.fstat(fd)
            yield from self._header(name, FILE, status, fd)
            left = status.st_size
            self.size_bytes += left
            while left:
                piece = os.read(fd, min(left, _READ_BYTES))
                if not piece:
                    if len(self.changed) < MAX_TOLD:
                        self.changed.append(show_name(name))
                    yield from _zeros(left)
                    break
                left -= len(piece)
                yield piece
            yield bytes(-status.st_size % BLOCK)
        finally:
            os.close(fd)

    def _header(self, name: bytes, kind: bytes, status: os.stat_result, fd: int = -1, *, link: bytes = b"") -> Iterator[bytes]:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise Exhausted(f"there are over {MAX_ENTRIES} files; copy a part of them")
        if len(name) >= MAX_PATH_BYTES:
            raise HostFailed(f"{show_name(name)}: its path is longer than {MAX_PATH_BYTES} bytes; copy a part of the tree")
        shown = (name or b".") + b"/" if kind == DIRECTORY else name
        member = Member(
            shown,
            kind,
            stat.S_IMODE(status.st_mode),
            self._ids.inside_uid(status.st_uid),
            self._ids.inside_gid(status.st_gid),
            size=status.st_size if kind == FILE else 0,
            mtime_ns=status.st_mtime_ns,
            link=link,
            device=status.st_rdev if kind in (CHAR, BLOCK_DEVICE) else 0,
        )
        return header(member, self._xattrs(fd) if fd >= 0 else ())

    def _xattrs(self, fd: int) -> list[tuple[bytes, bytes]]:
        try:
            keys = sorted(key for key in os.listxattr(fd) if key.startswith(_KEPT) and not key.startswith(_OVERLAYS))
            if self._ids.are_mapped:  # ids in other values would have to be mapped, too
                keys = [key for key in keys if key.startswith("user.")]
            return [(os.fsencode(key), os.getxattr(fd, key)) for key in keys]
        except OSError:
            return []  # no attributes on this file system, or they change under our hands


def _zeros(count: int) -> Iterator[bytes]:
    piece = bytes(min(count, _READ_BYTES))
    while count:
        yield piece[:count]
        count -= min(count, len(piece))
