"""Whether a look at a path can hang: what lies on this node's own disks and memory answers, another node or a program may not.

Nothing is asked of a file system that may be dead: the kernel follows the path and turns back at the first mount
(openat2, RESOLVE_NO_XDEV), and only mounts of file systems that answer are entered. A file mounted over another one at the very
end of the path counts as a mount, too. Blocking, for some microseconds.
"""

import errno
import os
from typing import Final

from criollo.linux import libc, mount
from criollo.linux.files import open_directory

_ANSWERING: Final = frozenset(
    "bcachefs btrfs cgroup cgroup2 configfs devpts devtmpfs erofs exfat ext2 ext3 ext4 f2fs hugetlbfs iso9660 jfs mqueue "
    "overlay proc ramfs securityfs squashfs sysfs tmpfs ubifs vfat xfs zfs".split()
)
_TURNED_BACK: Final = (errno.EXDEV, errno.EAGAIN)  # the latter: somebody renamed on the way


def open_near(anchor: str, path: str) -> int | None:
    """A path on the mount at the directory `anchor`, by O_PATH; None when it leads off that mount.

    Raises:
        OSError: it is not there.
    """
    directory = open_directory(anchor)
    try:
        return libc.openat2(directory, path.lstrip("/") or ".", os.O_PATH, resolve=libc.RESOLVE_NO_XDEV)
    except OSError as error:
        if error.errno in _TURNED_BACK:
            return None
        raise
    finally:
        os.close(directory)


def is_near(path: str) -> bool:
    """Whether an absolute path answers, also when it is not there; the mount table is read only for what is not on `/`."""
    path = os.path.normpath(path)
    if path.startswith("/dev/") and _stays("/dev", path[5:]):
        return True
    if _stays("/", path):
        return True
    entries = [each for each in mount.mounts() if _holds(each.target, path)]
    if any(each.fstype not in _ANSWERING for each in entries):
        return False
    deepest = max((each.target for each in entries), key=len, default="/")
    return deepest != "/" and _stays(deepest, path[len(deepest) :])


def _stays(anchor: str, path: str) -> bool:
    try:
        fd = open_near(anchor, path)
    except OSError:
        return True  # this, too, is an answer
    if fd is None:
        return False
    os.close(fd)
    return True


def _holds(directory: str, path: str) -> bool:
    return directory == "/" or path == directory or path.startswith(directory + "/")
