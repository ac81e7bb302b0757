"""Entries of a layer → files below the current directory, which is the root of the process (`linux.sandbox.enter`).

Links in a path are followed as the kernel does it, within this root: the directory was empty at the start and is all
there is, so they lead nowhere else. What each shape of entry becomes:

    name                leading `/`, `.`, empty parts and inner `..` are cleaned away; above the root: refused
    root entry (`.`)    a directory: mode, owner, times, attributes of the root; anything else: refused
    missing parents     made, 0755 root, and reported as `implied`
    below a file        refused; below a dangling link: refused
    same name again     the last one wins; only a directory over a directory keeps what is inside; over anything else it is
                        opaque, since what was there hid the layers below
    hard link           to something unpacked before; never takes metadata; to itself: nothing happens
    `.wh.NAME`          whiteout: character device 0:0 named NAME; if NAME is in this layer it stays, a directory is opaque
    `.wh..wh..opq`      its directory is opaque (`trusted.overlay.opaque=y`); other `.wh..wh.*` are ignored
    attributes          `trusted.overlay.*`, `user.overlay.*`, `security.selinux` are dropped; without support: dropped

Modes with setuid and setgid bits, default ACLs and times of directories come last, so that nothing inherits or spoils
them. Owners are numbers. Source: OCI image-spec layer.md; Linux, Documentation/filesystems/overlayfs.rst.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Final

from criollo.errors import CriolloError, Damaged, Exhausted, HostFailed
from criollo.linux import tree
from criollo.workers.messages import MAX_ENTRIES
from criollo.workers.tar import BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Entry, show_name

MAX_SPARSE_BYTES: Final = 1 << 44
MAX_IMPLIED: Final = 100_000

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT: Final = b".wh."
_META: Final = b".wh..wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_OPAQUE: Final = "trusted.overlay.opaque"
_CAPABILITY: Final = b"security.capability"
_DROPPED: Final = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # linux/kdev_t.h
_MAX_TIME_NS: Final = 1 << 62  # the year 2116; file systems cut further
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_BAD_SHAPE: Final = (
    *(errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST),
    *(errno.EINVAL, errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EFBIG, errno.EBUSY, errno.EMFILE),
)
_NO_SUPPORT: Final = (errno.EOPNOTSUPP, errno.ENODATA)


class Extractor:
    """Makes the entries of one layer; see the module. `finish` when all have come."""

    def __init__(self, *, max_inodes: int = MAX_ENTRIES) -> None:
        self._max_inodes = max_inodes
        self.size_bytes = 0  # content of regular files
        self.inodes = 0
        self.implied: dict[bytes, None] = {b"": None}  # directories that no entry described (an ordered set); b"" is the root
        self._directories: dict[bytes, Entry] = {}
        self._file: int = -1  # a regular file whose content still comes
        self._entry: Entry | None = None
        self._left = 0
        self._offset = 0
        self._holes: list[tuple[int, int]] = []
        self._make: dict[bytes, Callable[[bytes, Entry], None]] = {
            FILE: self._make_file,
            LINK: self._make_link,
            SYMLINK: self._make_symlink,
            CHAR: self._make_node,
            BLOCK_DEVICE: self._make_node,
            DIRECTORY: self._make_directory,
            FIFO: self._make_node,
        }

    def add(self, entry: Entry) -> None:
        """Make one entry, with its content if it carries it.

        Raises:
            Damaged: the entry cannot be; the text names it and says why.
            Exhausted: the disk is full.
        """
        try:
            name = clean_name(entry.name)
            if _WHITEOUT in name and self._is_marker(name):
                return
            if not name and entry.kind != DIRECTORY:
                raise Damaged("it would replace the root directory of the layer")
            self._make[entry.kind](name, entry)
        except (OSError, Damaged) as error:
            raise _explained(error, entry.name) from None

    def write(self, content: memoryview) -> None:
        """More content of the last entry.

        Raises:
            Exhausted: the disk is full.
        """
        if self._file < 0:
            return
        entry = self._entry
        assert entry is not None
        try:
            self._write(content)
            self._left -= len(content)
            if self._left <= 0:
                self._finish_file(entry)
        except OSError as error:
            raise _explained(error, entry.name) from None

    def finish(self) -> None:
        """Give directories their final modes, attributes and times."""
        for name, entry in self._directories.items():
            try:
                fd = os.open(name or b".", _DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # replaced by a later entry through another path
                raise _explained(error, entry.name) from None
            try:
                if entry.mode & 0o6000:
                    os.fchmod(fd, entry.mode)
                if entry.xattrs:
                    self._set_xattrs(fd, entry)
                os.utime(fd, ns=_times(entry))
            except (OSError, Damaged) as error:
                raise _explained(error, entry.name) from None
            finally:
                os.close(fd)

    def _make_file(self, name: bytes, entry: Entry) -> None:
        if entry.sparse is not None and entry.size > MAX_SPARSE_BYTES:
            raise Damaged(f"a sparse file may have {MAX_SPARSE_BYTES} bytes, this one says {entry.size}")
        try:
            fd = os.open(name, _CREATE, entry.mode)
        except OSError as error:
            fd = self._place(error, name, os.open, name, _CREATE, entry.mode)
        self._file, self._entry = fd, entry
        self.inodes += 1
        self.size_bytes += entry.stored
        if entry.sparse is not None:
            os.ftruncate(fd, entry.size)
            self._holes, self._offset = [region for region in reversed(entry.sparse) if region[1]], 0
        if entry.body is None:
            self._left = entry.stored
            return
        if entry.stored:
            self._write(entry.body)
        self._finish_file(entry)

    def _write(self, content: memoryview) -> None:
        assert self._entry is not None
        if self._entry.sparse is not None:
            self._write_regions(content)
            return
        written = os.write(self._file, content)
        while written < len(content):
            written += os.write(self._file, content[written:])

    def _write_regions(self, content: memoryview) -> None:
        while content:
            offset, length = self._holes[-1]
            part = content[: length - self._offset]
            written = os.pwrite(self._file, part, offset + self._offset)
            self._offset += written
            content = content[written:]
            if self._offset == length:
                self._holes.pop()
                self._offset = 0

    def _finish_file(self, entry: Entry) -> None:
        fd, self._file = self._file, -1
        try:
            if entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & 0o6000:
                os.fchmod(fd, entry.mode)  # chown and write take these bits away
            if entry.xattrs:
                self._set_xattrs(fd, entry)
            mtime = entry.mtime_ns
            os.utime(fd, ns=(mtime, mtime) if -_MAX_TIME_NS < mtime < _MAX_TIME_NS else _times(entry))
        finally:
            os.close(fd)

    def _make_directory(self, name: bytes, entry: Entry) -> None:
        self.implied.pop(name, None)
        self._directories[name] = entry
        if name:
            try:
                os.mkdir(name, entry.mode & 0o1777)
            except FileExistsError:
                self._renew_directory(name, entry)
            except OSError as error:
                self._place(error, name, os.mkdir, name, entry.mode & 0o1777)
            self.inodes += 1
        else:
            os.chmod(b".", entry.mode & 0o1777)
        if entry.uid or entry.gid:
            os.chown(name or b".", entry.uid, entry.gid, follow_symlinks=False)

    def _renew_directory(self, name: bytes, entry: Entry) -> None:
        """A directory that is there takes the values of this entry; anything else gives way."""
        if stat.S_ISDIR(os.lstat(name).st_mode):
            os.chmod(name, entry.mode & 0o1777)
            os.chown(name, entry.uid, entry.gid)
            self.inodes -= 1
            return
        self._clear(name)
        os.mkdir(name, entry.mode & 0o1777)
        self._directories[name] = entry
        os.setxattr(name, _OPAQUE, b"y", follow_symlinks=False)

    def _make_symlink(self, name: bytes, entry: Entry) -> None:
        try:
            os.symlink(entry.link, name)
        except OSError as error:
            self._place(error, name, os.symlink, entry.link, name)
        self._finish_by_name(name, entry)

    def _make_node(self, name: bytes, entry: Entry) -> None:
        if entry.major > _MAX_MAJOR or entry.minor > _MAX_MINOR:
            raise Damaged(f"device {entry.major}:{entry.minor} is out of range ({_MAX_MAJOR}:{_MAX_MINOR})")
        kind = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}[entry.kind]
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(name, kind | entry.mode, device)
        except OSError as error:
            self._place(error, name, os.mknod, name, kind | entry.mode, device)
        self._finish_by_name(name, entry)

    def _finish_by_name(self, name: bytes, entry: Entry) -> None:
        """Owner, attributes and times of what cannot be opened safely; the name is ours and is not followed."""
        self.inodes += 1
        if entry.uid or entry.gid:
            os.chown(name, entry.uid, entry.gid, follow_symlinks=False)
            if entry.mode & 0o6000 and entry.kind != SYMLINK:
                os.chmod(name, entry.mode)
        if entry.xattrs:
            self._set_xattrs(name, entry)
        os.utime(name, ns=_times(entry), follow_symlinks=False)

    def _make_link(self, name: bytes, entry: Entry) -> None:
        target = clean_name(entry.link)
        if not target:
            raise Damaged("it links to the root directory")
        try:
            os.link(target, name, follow_symlinks=False)
        except OSError as error:
            try:
                there = os.lstat(target)
            except OSError:
                raise Damaged(f"it links to {show_name(entry.link)}, which is not in the layer") from None
            if error.errno == errno.EEXIST and os.path.samestat(there, os.lstat(name)):
                return
            if stat.S_ISDIR(there.st_mode):
                raise Damaged(f"it links to the directory {show_name(entry.link)}") from None
            self._place(error, name, os.link, target, name, follow_symlinks=False)

    def _set_xattrs(self, target: int | bytes, entry: Entry) -> None:
        for key, value in entry.xattrs:
            if key.startswith(_DROPPED) or (entry.kind == SYMLINK and key.startswith(b"user.")):
                continue
            if key == _CAPABILITY and not value:  # the kernel stores it, and nobody can read it
                raise Damaged("its attribute security.capability is empty")
            try:
                if isinstance(target, int):
                    os.setxattr(target, key, value)
                else:
                    os.setxattr(target, key, value, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_SUPPORT:
                    continue
                if error.errno in _FULL and len(value) < 1024:  # a larger one may just not fit into its inode
                    raise
                raise Damaged(f"its attribute {show_name(key)} of {len(value)} bytes: {error.strerror}") from None
            except ValueError:
                raise Damaged(f"its attribute {show_name(key)} has a NUL in its name") from None

    def _is_marker(self, name: bytes) -> bool:
        """Obey a whiteout or an opaque mark; True if `name` was one, or belongs to AUFS itself."""
        directory, _, base = name.rpartition(b"/")
        if base == _OPAQUE_MARK:
            self._make_opaque(directory or b".")
        elif name.startswith(_META) or base.startswith(_META):
            pass
        elif base.startswith(_WHITEOUT):
            self._white_out(directory, base)
        else:
            return False
        return True

    def _white_out(self, directory: bytes, base: bytes) -> None:
        hidden = base[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Damaged("a whiteout must name something")
        name = directory + b"/" + hidden if directory else hidden
        try:
            os.mknod(name, stat.S_IFCHR, 0)
        except FileExistsError:
            # A whiteout hides what is below this layer, never what is in it.
            if stat.S_ISDIR(os.lstat(name).st_mode):
                os.setxattr(name, _OPAQUE, b"y", follow_symlinks=False)
            return
        except OSError as error:
            self._place(error, name, os.mknod, name, stat.S_IFCHR, 0)
        self.inodes += 1

    def _make_opaque(self, directory: bytes) -> None:
        for attempt in range(2):
            try:
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                if attempt:
                    raise
                self._make_parents(directory + b"/x")
                continue
            try:
                os.setxattr(fd, _OPAQUE, b"y")
            finally:
                os.close(fd)
            return

    def _place(self, error: OSError, name: bytes, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Do again what failed with `error`, after making parents or clearing the place."""
        for _ in range(2):
            if error.errno == errno.EEXIST:
                self._clear(name)
            elif error.errno in (errno.ENOENT, errno.ENOTDIR):
                self._make_parents(name)
            else:
                break
            try:
                return call(*arguments, **options)
            except OSError as again:
                error = again
        raise error

    def _clear(self, name: bytes) -> None:
        """Make room for another entry of the same name."""
        self._directories.pop(name, None)
        root = os.open(b"/", _DIRECTORY)
        try:
            kept = tree.remove(root, os.fsdecode(name), root)
        finally:
            os.close(root)
        if kept:
            raise Damaged(f"it cannot replace what is there: {kept[0]}")

    def _make_parents(self, name: bytes) -> None:
        at = name.find(b"/")
        while at > 0:
            parent = name[:at]
            at = name.find(b"/", at + 1)
            try:
                os.mkdir(parent, 0o755)
            except FileExistsError:
                if not _is_whiteout(parent):
                    continue
                os.unlink(parent)  # the layer replaces a directory: below it nothing of lower layers is seen
                os.mkdir(parent, 0o755)
                os.setxattr(parent, _OPAQUE, b"y", follow_symlinks=False)
            self.inodes += 1
            if self.inodes > self._max_inodes:
                raise Damaged(f"a layer may have {self._max_inodes} entries, with the directories that they imply")
            if len(self.implied) < MAX_IMPLIED:
                self.implied[parent] = None


def clean_name(name: bytes) -> bytes:
    """A name relative to the root, without `.`, `..` or empty parts; empty for the root itself.

    Raises:
        Damaged: it leads above the root.
    """
    if name.startswith(b"./"):
        name = name[2:]
    if name.endswith(b"/"):
        name = name[:-1]
    if b"//" not in name and b"/." not in name and not name.startswith((b".", b"/")):
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Damaged("its path leads out of the layer")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


def _is_whiteout(name: bytes) -> bool:
    status = os.lstat(name)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _times(entry: Entry) -> tuple[int, int]:
    bounded = max(-_MAX_TIME_NS, min(_MAX_TIME_NS, entry.mtime_ns))
    return bounded, bounded


def _explained(error: OSError | Damaged, name: bytes) -> CriolloError:
    where = f"layer entry {show_name(name)}"
    if isinstance(error, Damaged):
        return Damaged(f"{where}: {error}")
    if error.errno in _FULL:
        return Exhausted(
            f"{where}: the disk of the layer store is full ({error.strerror}); free space or inodes and pull again"
        )
    if error.errno in _BAD_SHAPE:
        return Damaged(f"{where}: {error.strerror}")
    return HostFailed(f"{where}: {error.strerror}")
