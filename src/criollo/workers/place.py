"""A tar stream → a live tree: what `kpod cp` writes, into a container in a worker, onto the node in its own process.

The counterpart of `workers.collect`. What is there already:

    directory over directory    stays, with its owner, mode and times
    file over file              replaced; what is mounted at a single name is written in place (to unlink would unmount it)
    one over the other          refused

Entries are made below one open directory. In a worker, whose root is the container's, links on the way are followed; on
the node they are not, because the archive may have brought them. Owner, mode and times are set by descriptor.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from criollo.errors import CriolloError, Damaged, Exhausted, HostFailed
from criollo.linux import libc
from criollo.workers import live
from criollo.workers.extract import MAX_SPARSE_BYTES, clean_name
from criollo.workers.ids import Ids
from criollo.workers.landing import Landing
from criollo.workers.tar import BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Entry, show_name

MAX_TOLD: Final = 20

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES: Final = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_MAX_TIME_NS: Final = 1 << 62
_RIGHTS: Final = stat.S_ISUID | stat.S_ISGID


class Keep(NamedTuple):
    """What is taken over from the archive. `rights`: setuid and setgid bits, file capabilities, device nodes."""

    owners: bool = True
    rights: bool = True


class _Content(NamedTuple):
    """A file that is being written; `is_new`: it takes the entry's owner and mode."""

    fd: int
    entry: Entry
    is_new: bool


class Placer:
    """Makes entries one after the other; `finish` when all have come. `skipped` names what was left out, the first few."""

    def __init__(self, own: int, landing: Landing, *, ids: Ids, keep: Keep, follow: bool) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.skipped: list[str] = []
        self._own, self._landing, self._ids, self._keep = own, landing, ids, keep
        self._resolve = live.INSIDE if follow else live.NO_LINKS
        self._parent: tuple[bytes, int] = (b"", os.dup(landing.top))
        self._begun: list[tuple[bytes, Entry]] = []  # directories of ours, outermost first: done when the next is not below
        self._content: _Content | None = None
        self._offset = self._left = 0
        self._regions: list[tuple[int, int]] = []
        self._make: dict[bytes, Callable[[bytes, Entry], None]] = {
            FILE: self._make_file,
            LINK: self._make_link,
            SYMLINK: self._make_symlink,
            DIRECTORY: self._make_directory,
        }

    def add(self, entry: Entry) -> None:
        """Make one entry, with its content if it carries it.

        Raises:
            Damaged: the entry cannot be.
            Exhausted: the disk is full.
            HostFailed: what is there does not let it.
        """
        try:
            name = clean_name(entry.name)
            if self._landing.name:
                name = self._only(entry)
            self._leave(name)
            self.entries += 1
            self._make.get(entry.kind, self._make_node)(name, entry)
        except (OSError, Damaged) as error:
            raise _explained(error, entry.name) from None

    def write(self, content: memoryview) -> None:
        """More content of the last entry. Raises as `add`."""
        if self._content is None:
            return
        try:
            self._write(self._content, content)
            self._left -= len(content)
            if self._left <= 0:
                self._close_file()
        except OSError as error:
            raise _explained(error, self._content.entry.name if self._content else b"") from None

    def finish(self) -> None:
        """Give the last directories their modes and times. Raises as `add`."""
        if self._landing.name and not self.entries:
            raise Damaged("the archive has no file")
        self._leave(None)

    def close(self) -> None:
        """Let go of descriptors."""
        if self._content is not None:
            os.close(self._content.fd)
            self._content = None
        if self._parent[1] >= 0:
            os.close(self._parent[1])
            self._parent = (b"", -1)

    def _only(self, entry: Entry) -> bytes:
        """The name for the one file of a copy that has a single one."""
        if self.entries or entry.kind == DIRECTORY:
            raise Damaged("a copy of one file has more than that")
        return self._landing.name

    def _place(self, name: bytes) -> tuple[int, bytes]:
        """The open directory an entry is in, and its last name."""
        above, _, base = name.rpartition(b"/")
        if above != self._parent[0]:
            fd = libc.openat2(self._landing.top, above or b".", os.O_PATH | os.O_DIRECTORY, resolve=self._resolve)
            os.close(self._parent[1])
            self._parent = (above, fd)
            live.refuse_kernels(fd, name)
        return self._parent[1], base

    def _make_directory(self, name: bytes, entry: Entry) -> None:
        if not name:
            if self._landing.is_new:
                self._begun.append((b"", entry))
            return
        parent, base = self._place(name)
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            os.close(libc.openat2(parent, base, os.O_PATH | os.O_DIRECTORY, resolve=self._resolve))
            return
        self._begun.append((name, entry))

    def _leave(self, name: bytes | None) -> None:
        """Finish the directories that `name` is not below; their modes come last, so that they can be written to until then."""
        while self._begun:
            above, entry = self._begun[-1]
            if name is not None and (not above or name.startswith(above + b"/")):
                return
            self._begun.pop()
            parent, base = self._place(above) if above else (self._landing.top, b".")
            try:
                fd = os.open(base, _DIRECTORY, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # somebody has taken it away meanwhile
                raise
            try:
                self._describe(fd, entry)
            finally:
                os.close(fd)

    def _make_file(self, name: bytes, entry: Entry) -> None:
        if entry.sparse is not None and entry.size > MAX_SPARSE_BYTES:
            raise Damaged(f"a sparse file may have {MAX_SPARSE_BYTES} bytes, this one says {entry.size}")
        parent, base = self._place(name)
        if live.is_mount_point(parent, base):
            self._content = _Content(self._mounted(parent, base), entry, is_new=False)
        else:
            _clear(parent, base)
            self._content = _Content(os.open(base, _CREATE, 0o600, dir_fd=parent), entry, is_new=True)
        self.size_bytes += entry.stored
        self._offset, self._left = 0, entry.stored
        self._regions = []
        if entry.sparse is not None:
            os.ftruncate(self._content.fd, entry.size)
            self._regions = [region for region in reversed(entry.sparse) if region[1]]
        if entry.body is not None:
            self._write(self._content, entry.body)
            self._close_file()

    def _mounted(self, parent: int, base: bytes) -> int:
        """A single file that is mounted, opened to be written anew."""
        looked = live.look(parent, base)
        try:
            if not stat.S_ISREG(os.fstat(looked).st_mode):
                raise Damaged("something is mounted there that is no file")
            live.refuse_kernels(looked, base)
            return live.again(self._own, looked, os.O_WRONLY | os.O_TRUNC)
        finally:
            os.close(looked)

    def _write(self, target: _Content, content: memoryview) -> None:
        if target.entry.sparse is None:
            while content:
                content = content[os.write(target.fd, content) :]
            return
        while content:
            offset, length = self._regions[-1]
            written = os.pwrite(target.fd, content[: length - self._offset], offset + self._offset)
            self._offset += written
            content = content[written:]
            if self._offset == length:
                self._regions.pop()
                self._offset = 0

    def _close_file(self) -> None:
        assert self._content is not None
        (fd, entry, is_new), self._content = self._content, None
        try:
            if is_new:
                self._describe(fd, entry)
        finally:
            os.close(fd)

    def _make_symlink(self, name: bytes, entry: Entry) -> None:
        parent, base = self._place(name)
        _clear(parent, base)
        os.symlink(entry.link, base, dir_fd=parent)
        self._describe_by_look(parent, base, entry, stat.S_IFLNK)

    def _make_node(self, name: bytes, entry: Entry) -> None:
        if not self._keep.rights:
            if len(self.skipped) < MAX_TOLD:
                self.skipped.append(show_name(entry.name))
            return
        if entry.major >= 1 << 12 or entry.minor >= 1 << 20:
            raise Damaged(f"device {entry.major}:{entry.minor} is out of range")
        parent, base = self._place(name)
        _clear(parent, base)
        kind = _NODES[entry.kind]
        os.mknod(base, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        self._describe_by_look(parent, base, entry, kind)

    def _make_link(self, name: bytes, entry: Entry) -> None:
        target = clean_name(entry.link)
        above, _, base = target.rpartition(b"/")
        if not base:
            raise Damaged("it links to a directory")
        holder = libc.openat2(self._landing.top, above or b".", os.O_PATH | os.O_DIRECTORY, resolve=self._resolve)
        try:
            parent, own_base = self._place(name)
            if target != name:
                _clear(parent, own_base)
                os.link(base, own_base, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(holder)

    def _describe_by_look(self, parent: int, base: bytes, entry: Entry, kind: int) -> None:
        """Owner, mode and times of what cannot be opened; of what was made, not of what may be there by now."""
        looked = live.look(parent, base)
        try:
            if stat.S_IFMT(os.fstat(looked).st_mode) != kind:
                return
            path = str(looked)
            if self._keep.owners:
                os.chown(path, self._ids.host_uid(entry.uid), self._ids.host_gid(entry.gid), dir_fd=self._own)
            if kind != stat.S_IFLNK:
                os.chmod(path, self._mode(entry), dir_fd=self._own)
            os.utime(path, ns=_times(entry), dir_fd=self._own)
        finally:
            os.close(looked)

    def _describe(self, fd: int, entry: Entry) -> None:
        if self._keep.owners:
            os.fchown(fd, self._ids.host_uid(entry.uid), self._ids.host_gid(entry.gid))
        os.fchmod(fd, self._mode(entry))
        for key, value in entry.xattrs:
            self._set_xattr(fd, key, value)
        os.utime(fd, ns=_times(entry))

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self._keep.rights else entry.mode & ~_RIGHTS

    def _set_xattr(self, fd: int, key: bytes, value: bytes) -> None:
        is_plain = key.startswith(b"user.") and not key.startswith(b"user.overlay.")
        is_right = key == b"security.capability" or key.startswith(b"system.posix_acl_")
        if b"\0" in key or not (is_plain or (is_right and self._keep.rights and not self._ids.are_mapped)):
            return
        try:
            os.setxattr(fd, key, value)
        except OSError as error:
            if error.errno in _FULL and len(value) < 1024:
                raise
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, *_FULL):
                raise Damaged(f"its attribute {show_name(key)} of {len(value)} bytes: {error.strerror}") from None


def _clear(parent: int, base: bytes) -> None:
    """Make room for a file where one is, or nothing."""
    if live.is_mount_point(parent, base):
        raise Damaged("something is mounted there")
    try:
        os.unlink(base, dir_fd=parent)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        if stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
            raise Damaged("a directory is there, and a file cannot replace it") from None
        raise


def _times(entry: Entry) -> tuple[int, int]:
    bounded = max(-_MAX_TIME_NS, min(_MAX_TIME_NS, entry.mtime_ns))
    return bounded, bounded


def _explained(error: OSError | Damaged, name: bytes) -> CriolloError:
    where = f"cannot write {show_name(name)!r}"
    if isinstance(error, Damaged):
        return Damaged(f"{where}: {error}")
    if error.errno in _FULL:
        return Exhausted(f"{where}: the disk is full ({error.strerror}); free space or inodes and copy again")
    if error.errno == errno.ELOOP:
        return HostFailed(f"{where}: a link is in the way, and those that a copy may have brought are not followed")
    return HostFailed(f"{where}: {error.strerror}")
