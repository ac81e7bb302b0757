"""Project quotas of ext4 and xfs: trees of files that are counted and bounded together. No policy.

Every inode has a project number, 0 at first; one made in a directory that inherits takes the directory's. The file system
counts blocks and inodes per number, and bounds them when it is mounted with `prjquota`.

Source: quotactl(2), quotactl_fd since Linux 5.14; FS_IOC_FSSETXATTR in linux/fs.h; linux/quota.h; linux/dqblk_xfs.h.
"""

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final, NamedTuple

_SYS_QUOTACTL_FD: Final = 443  # asm-generic/unistd.h; the same on every architecture
_PROJECTS: Final = 2  # PRJQUOTA
_GET: Final = 0x800007 << 8 | _PROJECTS  # Q_GETQUOTA
_SET: Final = 0x800008 << 8 | _PROJECTS  # Q_SETQUOTA
_STATE: Final = (ord("X") << 8 | 5) << 8 | _PROJECTS  # Q_XGETQSTAT
_ENFORCED: Final = 1 << 5  # FS_QUOTA_PDQ_ENFD
_HARD_LIMITS: Final = 1 | 4  # QIF_BLIMITS, QIF_ILIMITS
_BLOCK: Final = 1024  # QIF_DQBLKSIZE: the unit of limits, not of what is counted

_GET_ATTRIBUTES: Final = 0x801C581F  # FS_IOC_FSGETXATTR
_SET_ATTRIBUTES: Final = 0x401C5820  # FS_IOC_FSSETXATTR
_INHERIT: Final = 0x200  # FS_XFLAG_PROJINHERIT
_ATTRIBUTES: Final = struct.Struct("=5I8x")  # flags, extsize, nextents, project, cowextsize
_NUMBERS: Final = struct.Struct("=8QI4x")  # bytes: hard, soft, used; inodes: hard, soft, used; two times; what is valid

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Counted(NamedTuple):
    """What a project has and may have; 0 as a limit: none."""

    used_bytes: int
    used_inodes: int
    limit_bytes: int
    limit_inodes: int


def is_enforced(directory: int) -> bool:
    """Whether the file system of an open directory bounds projects; counting alone is not enough."""
    room = ctypes.create_string_buffer(256)
    try:
        _quotactl(directory, _STATE, 0, room)
    except OSError as error:
        if error.errno in (
            errno.ENOSYS,
            errno.EOPNOTSUPP,
            errno.ESRCH,
            errno.EINVAL,
            errno.ENOTBLK,
            errno.ENODEV,
            errno.ENOTTY,
        ):
            return False
        raise
    flags: int = struct.unpack_from("=H", room.raw, 2)[0]
    return bool(flags & _ENFORCED)


def project_of(file: int) -> int:
    """The project of an open file or directory; 0 where there are none."""
    try:
        answer = fcntl.ioctl(file, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return 0
        raise
    return int(_ATTRIBUTES.unpack(answer)[3])


def set_project(directory: int, project: int) -> None:
    """Put an open directory, and what will be made in it, into a project.

    Raises:
        OSError: EOPNOTSUPP, ENOTTY or EINVAL where there are no projects.
    """
    flags, extsize, nextents, _, cow = _ATTRIBUTES.unpack(fcntl.ioctl(directory, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))
    fcntl.ioctl(directory, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extsize, nextents, project, cow))


def set_limits(directory: int, project: int, *, limit_bytes: int, limit_inodes: int) -> None:
    """Bound a project of the file system of an open directory; 0: no bound. Bytes are rounded up to 1 KiB."""
    blocks = -(-limit_bytes // _BLOCK)
    _quotactl(
        directory,
        _SET,
        project,
        ctypes.create_string_buffer(_NUMBERS.pack(blocks, 0, 0, limit_inodes, 0, 0, 0, 0, _HARD_LIMITS), _NUMBERS.size),
    )


def counted(directory: int, project: int) -> Counted | None:
    """What a project has; None where projects are not counted. One that was never used has nothing."""
    room = ctypes.create_string_buffer(_NUMBERS.size)
    try:
        _quotactl(directory, _GET, project, room)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return Counted(0, 0, 0, 0)
        if error.errno in (errno.ESRCH, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
            return None
        raise
    most_blocks, _, used, most_inodes, _, inodes, *_ = _NUMBERS.unpack(room.raw)
    return Counted(used, inodes, most_blocks * _BLOCK, most_inodes)


def _quotactl(directory: int, command: int, project: int, room: object) -> None:
    result = _libc.syscall(
        ctypes.c_long(_SYS_QUOTACTL_FD), ctypes.c_uint(directory), ctypes.c_uint(command), ctypes.c_uint(project), room
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
