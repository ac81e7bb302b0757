"""Trees that their owner changes while we work on them: opened by descriptor and single names, looked at before they act.

What is opened here is first looked at by O_PATH, which no device or FIFO notices, and then opened again through the
process's own list of descriptors: nothing can be put in its place in between. Links are followed at most within the root
of the process. File systems in which the kernel shows itself are never read or written: through them a copy would act on
the host. Source: openat2(2), proc(5), statfs(2).
"""

import errno
import os
import stat
from typing import Final

from criollo.errors import HostFailed
from criollo.linux import libc

LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
INSIDE: Final = libc.RESOLVE_NO_MAGICLINKS
"""Links lead where they lead below the root of the process."""
NO_LINKS: Final = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS

_ANYWHERE: Final = -100  # linux/fcntl.h, AT_FDCWD
_MAX_LINKS: Final = 40  # as the kernel
_KERNEL: Final = frozenset(  # linux/magic.h
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xF97CFF8C,  # selinuxfs
        0x43415D53,  # smackfs
        0xCAFE4A11,  # bpf
        0x6165676C,  # pstore
        0xDE5E81E4,  # efivarfs
        0x42494E4D,  # binfmt_misc
        0x6E736673,  # nsfs
        0x19800202,  # mqueue
        0x62656570,  # configfs
        0x7655821,  # resctrl
        0x65735543,  # fusectl
    }
)


def own_descriptors() -> int:
    """The directory of this process's descriptors, for `again`; opened before the process loses sight of /proc."""
    return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def again(own: int, fd: int, flags: int) -> int:
    """Open what a descriptor of `LOOK` stands for, in another way."""
    return os.open(str(fd), flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=own)


def directory(path: bytes) -> int:
    """Open a directory by a path from the root of the process, following links. Raises OSError."""
    return libc.openat2(_ANYWHERE, path, os.O_PATH | os.O_DIRECTORY, resolve=INSIDE)


def anything(path: bytes) -> int:
    """Look at what a path leads to, following links. Raises OSError."""
    return libc.openat2(_ANYWHERE, path, os.O_PATH, resolve=INSIDE)


def look(parent: int, name: bytes) -> int:
    """Look at one name of a directory; a link is itself. Raises OSError."""
    return os.open(name, LOOK, dir_fd=parent)


def is_mount_point(parent: int, name: bytes) -> bool:
    """Whether something is mounted at a name; False when nothing is there. To remove the name would unmount it there."""
    try:
        os.close(libc.openat2(parent, name, LOOK, resolve=libc.RESOLVE_NO_XDEV))
    except OSError as error:
        if error.errno == errno.EXDEV:
            return True
        if error.errno != errno.ENOENT:
            raise
    return False


def is_kernels(fd: int) -> bool:
    """Whether a descriptor lies on a file system in which the kernel shows itself."""
    return libc.fstatfs_type(fd) & 0xFFFFFFFF in _KERNEL


def refuse_kernels(fd: int, path: bytes) -> None:
    """Raise HostFailed for what lies on such a file system."""
    if is_kernels(fd):
        shown = os.fsdecode(path)
        raise HostFailed(f"{shown!r} is no file of a disk but the kernel's own; read or write it with exec")


def final(path: bytes) -> tuple[int, bytes]:
    """The directory that holds what a path leads to, opened, and its name there; empty for the directory itself.

    Links are followed, the last one too. There may be nothing of that name.

    Raises:
        OSError: the directory is not there, or too many links.
    """
    for _ in range(_MAX_LINKS):
        parent, base = split(path)
        holder = directory(parent)
        try:
            target = _target(holder, base) if base else b""
        except BaseException:
            os.close(holder)
            raise
        if not target:
            return holder, base
        os.close(holder)
        path = target if target.startswith(b"/") else parent + b"/" + target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))


def _target(holder: int, base: bytes) -> bytes:
    """Where a link leads; nothing for what is no link, or not there."""
    try:
        found = look(holder, base)
    except FileNotFoundError:
        return b""
    try:
        return os.readlink(b"", dir_fd=found) if stat.S_ISLNK(os.fstat(found).st_mode) else b""
    finally:
        os.close(found)


def split(path: bytes) -> tuple[bytes, bytes]:
    """A path's directory and its last name; the whole and nothing when it ends in `/`, `.` or `..`, or is the root."""
    parent, _, base = path.rpartition(b"/")
    if base in (b"", b".", b".."):
        return path or b".", b""
    return parent or (b"/" if path.startswith(b"/") else b"."), base
