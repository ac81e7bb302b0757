"""What a process gives up before it reads hostile bytes: file system, network, descriptors, capabilities, limits.

`enter` leaves nothing of the host's file system behind: the directory becomes the root of a mount namespace in which
nothing else is mounted, so there is no old root to escape to, unlike after a plain chroot(2). The process must have one
thread. Source: prctl(2), capabilities(7), pivot_root(2), move_mount(2).
"""

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Iterable, Sequence
from typing import Final

from criollo.errors import Unsupported
from criollo.linux import libc, mount

CAP_CHOWN: Final = 0  # linux/capability.h
CAP_DAC_OVERRIDE: Final = 1
CAP_FOWNER: Final = 3
CAP_FSETID: Final = 4
CAP_SYS_ADMIN: Final = 21
CAP_MKNOD: Final = 27
CAP_SETFCAP: Final = 31

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = 63
_SYS_OPEN_TREE: Final = 428  # asm-generic/unistd.h; the same on every architecture
_SYS_MOVE_MOUNT: Final = 429
_OPEN_TREE_CLONE: Final = 1  # linux/mount.h
_AT_EMPTY_PATH: Final = 0x1000  # linux/fcntl.h
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_libc.syscall.restype = ctypes.c_long


def die_with_parent(parent: int) -> None:
    """Be killed when the thread that forked us ends; also when it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def keep_only(fds: Sequence[int]) -> None:
    """Close every descriptor above stderr but these."""
    start = 3
    for fd in sorted(fds):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 20)


def enter(directory: int) -> None:
    """Make the directory our root, in a mount and a network namespace of our own where nothing else is mounted.

    Raises:
        Unsupported: our root is one that cannot be changed.
        OSError: the kernel refused.
    """
    os.fchdir(directory)  # unshare moves the working directory into the new namespace, but not descriptors
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC)
    try:
        _change_root()
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Unsupported(
            "cannot confine a worker: its root cannot be changed, as that of a chroot or of an initramfs; start the daemon "
            "where / is a mount: bind the new root on itself before chroot, or leave the initramfs by switch_root"
        ) from error


def _change_root() -> None:
    mount.make_private("/", recursive=True)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH)
    empty = ctypes.c_char_p(b"")
    tree = _syscall(_SYS_OPEN_TREE, ctypes.c_int(here), empty, flags)
    move = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)
    _syscall(_SYS_MOVE_MOUNT, ctypes.c_int(tree), empty, ctypes.c_int(here), empty, move)
    os.fchdir(tree)
    _check(_libc.pivot_root(b".", b"."))
    libc.umount2(".", libc.MNT_DETACH)  # the old root, which pivot_root stacked on the new one
    os.chdir("/")
    os.close(tree)
    os.close(here)


def enter_foreign(root: int) -> None:
    """Make a directory of another mount namespace our root, in namespaces of our own where nothing of the host is mounted.

    It is a chroot(2), since what is mounted in another namespace cannot be moved into ours. There is nothing to escape to:
    the host's tree is gone, and the capability to change the root again must be dropped.
    """
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC)
    mount.make_private("/", recursive=True)
    mount.mount("empty", "/proc", "tmpfs", mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
    os.chdir("/proc")
    _check(_libc.pivot_root(b".", b"."))
    libc.umount2(".", libc.MNT_DETACH)  # the old root, which pivot_root stacked on the new one
    os.fchdir(root)
    os.chroot(".")


def make_files_as(owner: tuple[int, int]) -> None:
    """Files that this process makes belong to `owner`. Capabilities for files leave the effective set; put them back."""
    uid, gid = owner
    if owner != (0, 0):
        _libc.setfsgid(ctypes.c_uint(gid))
        _libc.setfsuid(ctypes.c_uint(uid))


def limit(*, memory_bytes: int, files: int, file_bytes: int, cpu_s: int) -> None:
    """Lower the hard limits of this process; a limit that is lower already stays."""
    wanted = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def drop_privileges(keep: Iterable[int]) -> None:
    """No new privileges ever, and of the capabilities only `keep` (those of them that we have)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    kept = set(keep)
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in kept and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # beyond the last one that this kernel knows
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets))
    mask = sum(1 << capability for capability in kept)
    for word in (0, 1):
        permitted = sets[3 * word + 1] & (mask >> (32 * word)) & 0xFFFFFFFF
        sets[3 * word], sets[3 * word + 1], sets[3 * word + 2] = permitted, permitted, 0
    _check(_libc.capset(header, sets))


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0))


def _syscall(number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
