"""Id-mapped mounts: the same files with other owners, by what a user namespace says of ids.

    on the disk 0:0  ──mount mapped by a namespace "0 100000 65536"──▶  100000:100000  ──inside that namespace──▶  0:0

Nothing is written: the mapping belongs to the mount, and only files whose owners it covers can be changed through it.
Source: mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.12 for ext4 and xfs, 5.15 for btrfs, 6.3 for tmpfs; 5.19 below overlay.
"""

import ctypes
import errno
import os
from typing import Final

_SYS_MOUNT_SETATTR: Final = 442  # asm-generic/unistd.h; the same on every architecture
_AT_EMPTY_PATH: Final = 0x1000  # linux/fcntl.h
_MOUNT_ATTR_IDMAP: Final = 0x00100000  # linux/mount.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class IdmapRefused(OSError):
    """The kernel does not know such mounts (ENOSYS), or not of this file system (EINVAL)."""


class _Attributes(ctypes.Structure):
    """struct mount_attr, linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def shift(tree: int, user_ns: int) -> None:
    """Map the ids of a mount that is attached nowhere yet (`fsmount.clone`) by the user namespace behind a descriptor.

    Raises:
        Refused: see there.
        OSError: the mount is mapped already, or we may not.
    """
    attributes = _Attributes(_MOUNT_ATTR_IDMAP, 0, 0, user_ns)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_uint(_AT_EMPTY_PATH),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise (IdmapRefused if code in (errno.ENOSYS, errno.EINVAL) else OSError)(code, os.strerror(code))
