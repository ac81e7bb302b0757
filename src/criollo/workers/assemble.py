"""The job `assemble`: layers, one over the other, become one tree without whiteouts.

For storage drivers that mount no layers. The layers are taken bottom first, each read once:

    whiteout (0:0)          what is there goes
    opaque directory        what is there goes, then the directory comes
    directory               over a directory: its content is added, attributes are those of the upper one
    anything else           takes the place of what is there
    files                   `link`: the layer's own inodes, which never change; else shared blocks or copies, holes kept

Hard links within a layer stay links of each other. Modes, attributes and times of directories come last, so that nothing
inherits or spoils them. Names are opened beneath open directories and links never followed: layers are hostile.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from criollo.errors import CriolloError, Exhausted, HostFailed, explain
from criollo.linux import content, libc, tree
from criollo.workers.messages import Assembled, AssembleJob

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH: Final = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS
_OPAQUE: Final = "trusted.overlay.opaque"
_PRIVATE: Final = ("trusted.overlay.", "user.overlay.")
_CANNOT_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
_NO_SUPPORT: Final = (errno.EOPNOTSUPP, errno.ENODATA)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

_WORTH_SHARING: Final = 64 << 10  # smaller ones are copied faster

Xattrs = dict[str, bytes]


class Layer(NamedTuple):
    """An open layer; `link`: its inodes may become those of the tree."""

    fd: int
    link: bool


def open_layers(directory: int, job: AssembleJob) -> list[Layer]:
    """The layers of a job, before the process is confined. One with a whole path is another store's: its inodes are as well.

    Raises:
        HostFailed: one is not there.
    """
    opened = []
    for name in job.names:
        with explain(f"open layer {name}"):
            fd = os.open(name, _DIRECTORY, dir_fd=directory)
        opened.append(Layer(fd, job.link and not os.path.isabs(name)))
    return opened


def assemble(layers: Sequence[Layer], target: int, progress: Callable[[int], None], *, sync: bool) -> Assembled:
    """Make one tree of the layers, bottom first, in the empty directory `target`.

    Raises:
        Exhausted: the disk is full.
        HostFailed: the kernel refused.
    """
    work = _Assembler(target, progress)
    try:
        for layer in layers:
            work.add(layer)
        work.finish()
        if sync:
            libc.syncfs(target)
        used = tree.usage(target)
    except OSError as error:
        raise _explained(error, work.at) from None
    return Assembled(used_bytes=used.bytes, inodes=used.inodes)


class _Entry(NamedTuple):
    """A name in a directory of a layer."""

    name: str
    status: os.stat_result
    xattrs: Xattrs


class _Assembler:
    """Adds layers to the tree at `target`; `at` is the path at hand, for messages. The process's directory moves."""

    def __init__(self, target: int, progress: Callable[[int], None]) -> None:
        self.at = "."
        self._target, self._progress = target, progress
        self._link = False
        self._clones = True
        self._done_bytes = 0
        self._directories: dict[str, tuple[os.stat_result, Xattrs]] = {}
        self._links: dict[int, str] = {}  # of this layer: inode → path of its first name in the tree

    def add(self, layer: Layer) -> None:
        """Lay a layer over what is there."""
        self._links.clear()
        self._link = layer.link
        os.fchdir(layer.fd)
        self._directories["."] = (os.fstat(layer.fd), _shown(_xattrs(".")))
        pending = ["."]
        while pending:
            path = self.at = pending.pop()
            with _opened(layer.fd, path) as source, _opened(self._target, path) as target:
                os.fchdir(source)
                entries = [_Entry(each.name, each.stat(follow_symlinks=False), _xattrs(each.name)) for each in _scan(source)]
                os.fchdir(target)
                pending += [below for each in entries if (below := self._add(each, path, source, target))]
            self._progress(self._done_bytes)

    def finish(self) -> None:
        """Give the directories their attributes, deepest first."""
        for path, (status, xattrs) in sorted(self._directories.items(), reverse=True):
            self.at = path
            with _opened(self._target, path) as fd:
                os.fchown(fd, status.st_uid, status.st_gid)
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
                for name, value in xattrs.items():
                    _set_xattr(fd, name, value)
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _add(self, entry: _Entry, above: str, source: int, target: int) -> str:
        """Lay one entry; returns the path of a directory that is to be looked into."""
        path = self.at = f"{above}/{entry.name}"
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            self._add_directory(entry, path, target)
            return path
        self._clear(entry.name, path, target)
        if stat.S_ISCHR(mode) and entry.status.st_rdev == 0:
            return ""
        if not (self._link and _link(entry.name, source, target)):
            self._make(entry, path, source, target)
        return ""

    def _add_directory(self, entry: _Entry, path: str, target: int) -> None:
        if _OPAQUE in entry.xattrs or not _is_directory(entry.name, target):
            self._clear(entry.name, path, target)
            os.mkdir(entry.name, 0o700, dir_fd=target)
        self._directories[path] = (entry.status, _shown(entry.xattrs))

    def _make(self, entry: _Entry, path: str, source: int, target: int) -> None:
        """Make what is no directory, anew, in the current directory, which is `target`."""
        name, status = entry.name, entry.status
        if status.st_nlink > 1:
            first = self._links.setdefault(status.st_ino, path)
            if first != path and self._link_to(first, name, target):
                return
        if stat.S_ISREG(status.st_mode):
            self._make_file(name, status, source, target)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        for key, value in _shown(entry.xattrs).items():
            _set_xattr(name, key, value)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _make_file(self, name: str, status: os.stat_result, source: int, target: int) -> None:
        made = os.open(name, _CREATE, 0o600, dir_fd=target)
        try:
            if not status.st_size:
                return
            original = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            try:
                if status.st_size < _WORTH_SHARING or not self._share(original, made):
                    content.copy(original, made, status.st_size, self._copied)
            finally:
                os.close(original)
        finally:
            os.close(made)

    def _share(self, original: int, made: int) -> bool:
        self._clones = self._clones and content.clone(original, made)
        return self._clones

    def _copied(self, length: int) -> None:
        self._done_bytes += length
        self._progress(self._done_bytes)

    def _link_to(self, first: str, name: str, target: int) -> bool:
        """Make `name` another name of what this layer has brought already; False when that has too many, or is gone."""
        above, _, base = first.rpartition("/")
        try:
            with _opened(self._target, above or ".") as holder:
                os.link(base, name, src_dir_fd=holder, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno in (*_CANNOT_LINK, errno.ENOENT):
                return False
            raise
        return True

    def _clear(self, name: str, path: str, target: int) -> None:
        """Remove what has this name in the tree, with all below."""
        try:
            os.unlink(name, dir_fd=target)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            if not _is_directory(name, target):
                raise
        else:
            return
        found = [path]
        for directory in found:
            with _opened(self._target, directory) as fd:
                for entry in _scan(fd):
                    if entry.is_dir(follow_symlinks=False):
                        found.append(f"{directory}/{entry.name}")
                    else:
                        os.unlink(entry.name, dir_fd=fd)
            self._progress(self._done_bytes)
        for directory in reversed(found):
            above, _, base = directory.rpartition("/")
            with _opened(self._target, above) as fd:
                os.rmdir(base, dir_fd=fd)
            self._directories.pop(directory, None)


@contextlib.contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    fd = libc.openat2(root, path, _DIRECTORY, resolve=_BENEATH)
    try:
        yield fd
    finally:
        os.close(fd)


def _scan(fd: int) -> Sequence["os.DirEntry[str]"]:
    with os.scandir(fd) as entries:
        return list(entries)


def _is_directory(name: str, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _link(name: str, source: int, target: int) -> bool:
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True


def _xattrs(name: str) -> Xattrs:
    """The attributes of a name in the current directory; none where there are no such things."""
    try:
        return {key: os.getxattr(name, key, follow_symlinks=False) for key in os.listxattr(name, follow_symlinks=False)}
    except OSError as error:
        if error.errno in _NO_SUPPORT:
            return {}
        raise


def _shown(xattrs: Xattrs) -> Xattrs:
    """Without what tells overlay something."""
    return {name: value for name, value in xattrs.items() if not name.startswith(_PRIVATE)}


def _set_xattr(target: int | str, key: str, value: bytes) -> None:
    try:
        os.setxattr(target, key, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def _explained(error: OSError, at: str) -> CriolloError:
    what = f"cannot put together the layers: {at.removeprefix('./')!r}"
    if error.errno in _FULL:
        return Exhausted(f"{what}: the disk is full ({error.strerror}); free space or inodes and try again")
    return HostFailed(f"{what}: {error.strerror}")
