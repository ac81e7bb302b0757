"""The job `relabel`: give a volume and all below it an SELinux label, which may take long or hang, so it can be killed.

Everything is opened relative to the volume's own descriptor and never through a link; the container of a pod that shares the
volume may rename there meanwhile. Mounts below it are left alone. The top comes last: as long as it has its old label, a
relabel that was cut is seen as undone.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from criollo.errors import Denied, explain
from criollo.linux import libc, selinux
from criollo.workers.messages import RelabelJob, Relabelled

# Whose label the node lives by, as in go-selinux, which podman and CRI-O use. They let most files of /etc be relabelled.
_NEVER: Final = frozenset(
    f"/{name}".rstrip("/")
    for name in (
        *("", "bin", "boot", "dev", "etc", "home", "lib", "lib64", "media"),
        *("opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var", "var/lib", "var/log"),
    )
)
_NOTHING_BELOW: Final = ("/boot/", "/dev/", "/etc/", "/proc/", "/sys/")
_BENEATH: Final = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV | libc.RESOLVE_NO_MAGICLINKS
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LONG_PATH: Final = 3000  # below PATH_MAX with room for one more name
_MAX_BASES: Final = 64
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EAGAIN)  # it changed, or is a mount


def relabel(job: RelabelJob, progress: Callable[[int], None]) -> Relabelled:
    """Label `job.path`; with `job.skip_if_right` nothing is done where the top has a label that means the same.

    Raises:
        Denied: the path is one that the node itself lives by.
        CriolloError: the kernel refused.
    """
    with explain(f"relabel volume {job.path!r}"):
        top = libc.openat2(-100, job.path, os.O_PATH, resolve=libc.RESOLVE_NO_SYMLINKS)  # AT_FDCWD; the path is free of links
        try:
            check_place(os.readlink(f"/proc/self/fd/{top}"))
            if job.skip_if_right and selinux.same(selinux.label_of(top), job.label):
                return Relabelled(changed=0, skipped=True)
            changed = 0
            if stat.S_ISDIR(os.fstat(top).st_mode):
                for name in _walk(top):
                    changed += _label(name, job.label)
                    progress(changed)
            return Relabelled(changed=changed + _label(top, job.label))
        finally:
            os.close(top)


def check_place(path: str) -> None:
    """Refuse what is no volume.

    Raises:
        Denied: it is a directory of the node's system.
    """
    if (path.rstrip("/") in _NEVER) or path.startswith(_NOTHING_BELOW):
        raise Denied(f"cannot relabel {path} for SELinux: the node's own system lives by its label; mount another directory")


def _label(fd: int, label: str) -> bool:
    """Whether the label was changed; a file system without labels is no error, as nothing reads one there."""
    return selinux.label_of(fd) != label and selinux.set_label(fd, label)


def _walk(top: int) -> Iterator[int]:
    """Everything below a directory by O_PATH, each closed when the next is asked for."""
    bases = [libc.openat2(top, b".", _DIRECTORY, resolve=_BENEATH)]
    opened = 1
    while bases:
        base = bases.pop()
        try:
            pending = [b"."]
            while pending:
                path = pending.pop()
                for below, name in _entries(base, path):
                    yield below
                    if not stat.S_ISDIR(os.fstat(below).st_mode):
                        continue
                    if len(path) + len(name) < _LONG_PATH:
                        pending.append(path + b"/" + name)
                    elif opened < _MAX_BASES:  # deeper than one path can name: go on from there
                        bases.append(libc.openat2(below, b".", _DIRECTORY, resolve=_BENEATH))
                        opened += 1
        finally:
            os.close(base)


def _entries(base: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    with _unless_gone():
        directory = libc.openat2(base, path, _DIRECTORY, resolve=_BENEATH)
        try:
            for name in map(os.fsencode, os.listdir(directory)):
                fd = -1
                with _unless_gone():
                    fd = libc.openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=_BENEATH & ~libc.RESOLVE_NO_SYMLINKS)
                if fd >= 0:
                    try:
                        yield fd, name
                    finally:
                        os.close(fd)
        finally:
            os.close(directory)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
