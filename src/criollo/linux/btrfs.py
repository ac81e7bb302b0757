"""Subvolumes of btrfs and their quota groups, by ioctl(2). No policy.

A subvolume is a directory with inodes of its own, which the kernel copies (a snapshot) and deletes as one thing, whatever
its size. Each has a quota group `0/<its id>` where quotas are enabled: how many bytes it refers to, and how many of these
no other subvolume has. The numbers follow the transactions: they may be half a minute old.

Source: linux/btrfs.h, linux/btrfs_tree.h; btrfs(5).
"""

import errno
import fcntl
import os
import struct
import sys
from typing import Final, NamedTuple

from criollo.linux import libc

MAGIC: Final = 0x9123683E  # linux/magic.h
_ROOT_INODE: Final = 256  # BTRFS_FIRST_FREE_OBJECTID: the root directory of every subvolume
_QUOTA_TREE: Final = 8  # BTRFS_QUOTA_TREE_OBJECTID
_INFO_KEY: Final = 242  # BTRFS_QGROUP_INFO_KEY
_LIMIT_KEY: Final = 244  # BTRFS_QGROUP_LIMIT_KEY

_SUBVOL_CREATE: Final = 0x5000940E  # _IOW(0x94, 14, struct btrfs_ioctl_vol_args)
_SNAP_DESTROY: Final = 0x5000940F
_TREE_SEARCH: Final = 0xD0009411  # _IOWR(0x94, 17, struct btrfs_ioctl_search_args)
_INO_LOOKUP: Final = 0xD0009412
_SNAP_CREATE_V2: Final = 0x50009417  # _IOW(0x94, 23, struct btrfs_ioctl_vol_args_v2)
_GET_FLAGS: Final = 0x80089419
_SET_FLAGS: Final = 0x4008941A
_QUOTA_CTL: Final = 0xC0109428  # _IOWR(0x94, 40, struct btrfs_ioctl_quota_ctl_args)
_QGROUP_LIMIT: Final = 0x8030942B  # _IOR(0x94, 43, struct btrfs_ioctl_qgroup_limit_args)
_READ_ONLY: Final = 2  # BTRFS_SUBVOL_RDONLY
_ENABLE: Final = 1  # BTRFS_QUOTA_CTL_ENABLE
_MAX_EXCLUSIVE: Final = 2  # BTRFS_QGROUP_LIMIT_MAX_EXCL
_NONE: Final = (1 << 64) - 1  # clears a limit

_ARGS: Final = struct.Struct("=q4088s")  # also of SNAP_DESTROY
_ARGS_V2: Final = struct.Struct("=qQQ32x4040s")
_SEARCH_KEY: Final = struct.Struct("=7Q4I32x")
_SEARCH_HEADER: Final = struct.Struct("=QQQII")
_INFO: Final = struct.Struct("=5Q")  # generation, rfer, rfer_cmpr, excl, excl_cmpr
_LIMIT: Final = struct.Struct("=5Q")  # flags, max_rfer, max_excl, rsv_rfer, rsv_excl
_BUFFER_BYTES: Final = 4096


class Group(NamedTuple):
    """What belongs to one subvolume alone, and the limit of that; 0: none."""

    exclusive_bytes: int
    limit_bytes: int


def is_btrfs(fd: int) -> bool:
    return libc.fstatfs_type(fd) & 0xFFFFFFFF == MAGIC


def is_subvolume(fd: int) -> bool:
    """Whether an open directory is the root of a subvolume."""
    return os.fstat(fd).st_ino == _ROOT_INODE and is_btrfs(fd)


def create(parent: int, name: str) -> None:
    """Make an empty subvolume, 0755, in an open directory."""
    _call(parent, _SUBVOL_CREATE, _ARGS.pack(0, os.fsencode(name)))


def snapshot(source: int, parent: int, name: str) -> None:
    """Make a writable copy of the subvolume `source` in an open directory of the same file system."""
    _call(parent, _SNAP_CREATE_V2, _ARGS_V2.pack(source, 0, 0, os.fsencode(name)))


def destroy(parent: int, name: str) -> None:
    """Delete a subvolume: it is out of sight at once, its space comes back later.

    Raises:
        OSError: ENOTEMPTY when there is another subvolume in it.
    """
    _call(parent, _SNAP_DESTROY, _ARGS.pack(0, os.fsencode(name)))


def set_read_only(subvolume: int, wanted: bool) -> None:
    current = struct.unpack("=Q", fcntl.ioctl(subvolume, _GET_FLAGS, bytes(8)))[0]
    changed = current | _READ_ONLY if wanted else current & ~_READ_ONLY
    if changed != current:
        fcntl.ioctl(subvolume, _SET_FLAGS, struct.pack("=Q", changed))


def enable_quotas(anywhere: int) -> None:
    """Count what subvolumes have, from now on; success when it is so already. The kernel looks once at all there is."""
    fcntl.ioctl(anywhere, _QUOTA_CTL, struct.pack("=QQ", _ENABLE, 0))


def limit_exclusive(subvolume: int, limit_bytes: int) -> None:
    """Bound what belongs to a subvolume alone; 0 takes the bound away.

    Raises:
        OSError: ENOTCONN when quotas are not enabled.
    """
    limits = _LIMIT.pack(_MAX_EXCLUSIVE, 0, limit_bytes or _NONE, 0, 0)
    fcntl.ioctl(subvolume, _QGROUP_LIMIT, struct.pack("=Q", 0) + limits)


def group_of(subvolume: int) -> Group | None:
    """The quota group of a subvolume; None where quotas are not enabled."""
    number = _id_of(subvolume)
    info = _search(subvolume, _INFO_KEY, number)
    if info is None:
        return None
    exclusive = _INFO.unpack_from(info)[3]
    limit = _search(subvolume, _LIMIT_KEY, number)
    flags, _, most, _, _ = _LIMIT.unpack_from(limit) if limit is not None else (0, 0, 0, 0, 0)
    return Group(exclusive, most if flags & _MAX_EXCLUSIVE and most != _NONE else 0)


def _id_of(subvolume: int) -> int:
    """INO_LOOKUP with tree 0 names the tree of the descriptor."""
    answer = _call(subvolume, _INO_LOOKUP, struct.pack("=QQ", 0, _ROOT_INODE).ljust(_BUFFER_BYTES, b"\0"))
    return int.from_bytes(answer[:8], sys.byteorder)


def _search(anywhere: int, kind: int, offset: int) -> bytes | None:
    """The item (0, kind, offset) of the quota tree."""
    key = _SEARCH_KEY.pack(_QUOTA_TREE, 0, 0, offset, offset, 0, _NONE, kind, kind, 1, 0)
    try:
        answer = _call(anywhere, _TREE_SEARCH, key.ljust(_BUFFER_BYTES, b"\0"))
    except OSError as error:
        if error.errno == errno.ENOENT:  # no such tree: quotas were never enabled
            return None
        raise
    found = _SEARCH_KEY.unpack_from(answer)[9]
    if not found:
        return None
    *_, length = _SEARCH_HEADER.unpack_from(answer, _SEARCH_KEY.size)
    start = _SEARCH_KEY.size + _SEARCH_HEADER.size
    return answer[start : start + length]


def _call(fd: int, number: int, argument: bytes) -> bytes:
    """ioctl(2) with an argument too long for Python's own buffer."""
    buffer = bytearray(argument)
    fcntl.ioctl(fd, number, buffer, True)
    return bytes(buffer)
