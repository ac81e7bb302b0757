"""The content of a file into another: shared where the file system can do it, else copied with its holes.

Source: ioctl_ficlone(2), copy_file_range(2), lseek(2).
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Final

_CLONE: Final = 0x40049409  # FICLONE, linux/fs.h
_PIECE: Final = 16 << 20
_CANNOT: Final = frozenset((errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM))


def clone(source: int, target: int) -> bool:
    """Let an empty file share the blocks of another; False where that cannot be."""
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def copy(source: int, target: int, size: int, progress: Callable[[int], None]) -> None:
    """Copy `size` bytes into an empty file; holes stay holes. `progress` gets what each step has copied."""
    os.ftruncate(target, size)
    for start, end in _regions(source, size):
        offset = start
        while offset < end:
            done = _copy_piece(source, target, offset, min(end - offset, _PIECE))
            if not done:
                return  # shorter than it was
            offset += done
            progress(done)


def _regions(source: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        offset = min(size, os.lseek(source, start, os.SEEK_HOLE))
        yield start, offset


def _copy_piece(source: int, target: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset, offset)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    os.lseek(source, offset, os.SEEK_SET)
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, None, length)
