"""A layer's tree as it is against `workers.seal_tree`: all that can be seen without opening files.

Compared are names, types, modes, owners, sizes, modification times, link targets, device numbers, hard links and extended
attributes. What the unpacker may not have been able to keep is not held against the tree: attributes that the file system
does not have, times outside of what every file system keeps, and modes behind an access list.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from criollo.workers.seal_tree import WHITEOUT, Node, children_of
from criollo.workers.tar import BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, SYMLINK, Entry, show_name

_TYPES: Final = {
    DIRECTORY: stat.S_IFDIR,
    FILE: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHAR: stat.S_IFCHR,
    WHITEOUT: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}
_WORDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_OPAQUE: Final = b"trusted.overlay.opaque"
_DROPPED: Final = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")  # as workers.extract
_ACL: Final = b"system.posix_acl_"
_WATCHED: Final = (b"user.", b"trusted.", b"security.capability")
_NOT_KEPT: Final = (errno.EOPNOTSUPP, errno.ENODATA)
_LATE_BITS: Final = stat.S_ISUID | stat.S_ISGID  # set last, as times and attributes are
_TIMES_S: Final = (-(1 << 31), (1 << 31) - 1)  # what every file system keeps
_SECOND_NS: Final = 1_000_000_000

Tell = Callable[[bytes, str], None]


class Look:
    """Compares the current directory; `seen` counts what was looked at. Paths of nodes are noted in `Node.at`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.seen = 0

    def compare(self, root: Node) -> None:
        """Look at everything below, and at the root itself."""
        self._one(b"", root, os.lstat("."))
        todo = [(b"", root)]
        while todo:
            path, node = todo.pop()
            try:
                names = set(os.listdir(path or b"."))
            except OSError as error:
                self._tell(path, f"cannot be listed: {error.strerror}")
                continue
            for below, child in children_of(path, node):
                name = below.rpartition(b"/")[2]
                if name not in names:
                    self._tell(below, "is missing")
                    continue
                names.discard(name)
                if self._at(below, child) and child.kind == DIRECTORY:
                    todo.append((below, child))
            for name in sorted(names):
                self._tell(path + b"/" + name if path else name, "does not belong there")

    def _at(self, path: bytes, node: Node) -> bool:
        """Compare one; whether it is of the right type."""
        try:
            status = os.lstat(path)
        except OSError as error:
            self._tell(path, f"cannot be looked at: {error.strerror}")
            return False
        return self._one(path, node, status)

    def _one(self, path: bytes, node: Node, status: os.stat_result) -> bool:
        self.seen += 1
        kind, wanted = stat.S_IFMT(status.st_mode), _TYPES[node.kind]
        if kind != wanted:
            self._tell(path, f"is {_WORDS.get(kind, 'something else')}, was {_WORDS[wanted]}")
            return False
        if node.kind != DIRECTORY and not self._identity(path, node, status):
            return True
        if node.kind == WHITEOUT:
            if status.st_rdev:
                self._tell(path, "is a device, was a whiteout")
            return True
        if node.entry is not None:
            for why in _differences(path, node, node.entry, status):
                self._tell(path, why)
        if not node.alias:
            self._attributes(path, node)
        return True

    def _identity(self, path: bytes, node: Node, status: os.stat_result) -> bool:
        """Names of one file must still be names of one file; whether this is the first of them."""
        identity = (status.st_dev, status.st_ino)
        if node.identity is None:
            node.identity, node.at = identity, path
            return True
        if node.identity != identity:
            self._tell(path, f"is no longer the same file as {show_name(b'/' + (node.at or b''))}")
        return False

    def _attributes(self, path: bytes, node: Node) -> None:
        target = path or b"."
        wanted = {} if node.entry is None else {key: value for key, value in node.entry.xattrs if _is_kept(node, key)}
        if node.opaque:
            wanted[_OPAQUE] = b"y"
        try:
            found = {os.fsencode(key) for key in os.listxattr(target, follow_symlinks=False)}
        except OSError as error:
            if error.errno not in _NOT_KEPT:
                self._tell(path, f"its attributes cannot be read: {error.strerror}")
            return
        for key, value in wanted.items():
            if key.startswith(_ACL):
                continue  # the kernel writes them in its own way, and drops those that the mode says already
            try:
                if os.getxattr(target, key, follow_symlinks=False) != value:
                    self._tell(path, f"attribute {show_name(key)} differs")
            except OSError as error:
                if error.errno == errno.ENODATA:
                    self._tell(path, f"attribute {show_name(key)} is missing")
                elif error.errno != errno.EOPNOTSUPP:
                    self._tell(path, f"attribute {show_name(key)} cannot be read: {error.strerror}")
        for key in sorted(found - wanted.keys()):
            if key.startswith(_WATCHED):
                self._tell(path, f"attribute {show_name(key)} does not belong there")


def _is_kept(node: Node, key: bytes) -> bool:
    return not key.startswith(_DROPPED) and not (node.kind == SYMLINK and key.startswith(b"user."))


def _differences(path: bytes, node: Node, entry: Entry, status: os.stat_result) -> list[str]:
    found = []
    mode, has_acl = stat.S_IMODE(status.st_mode), any(key.startswith(_ACL) for key, _ in entry.xattrs)
    late = _LATE_BITS if node.alias else 0
    if node.kind != SYMLINK and mode & ~late != entry.mode & ~late and not has_acl:
        found.append(f"mode is {mode:04o}, was {entry.mode:04o}")
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        found.append(f"owner is {status.st_uid}:{status.st_gid}, was {entry.uid}:{entry.gid}")
    if node.kind == FILE and status.st_size != entry.size:
        found.append(f"size is {status.st_size}, was {entry.size}")
    if node.kind == SYMLINK and os.readlink(path) != entry.link:
        found.append("leads elsewhere")
    if node.kind in (CHAR, BLOCK_DEVICE) and status.st_rdev != os.makedev(entry.major, entry.minor):
        found.append(f"is device {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}, was {entry.major}:{entry.minor}")
    if not node.alias and not _same_time(status.st_mtime_ns, entry.mtime_ns):
        found.append("was modified at another time")
    return found


def _same_time(found_ns: int, wanted_ns: int) -> bool:
    if found_ns == wanted_ns or not _TIMES_S[0] < wanted_ns // _SECOND_NS < _TIMES_S[1]:
        return True
    return found_ns % _SECOND_NS == 0 and found_ns // _SECOND_NS == wanted_ns // _SECOND_NS
