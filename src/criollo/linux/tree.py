"""Whole trees that others filled: removed and measured without following links or entering mounts, at any depth.

Removal does not descend: every directory that is not empty is first moved to a flat scratch directory and emptied
there. So the depth does not matter, and a mount point is never entered, because moving it fails with EBUSY.
"""

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from criollo.linux import libc

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH: Final = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV | libc.RESOLVE_NO_MAGICLINKS
_LONG_PATH: Final = 3000  # below PATH_MAX with room for one more name
_MAX_BASES: Final = 64


class TreeUsage(NamedTuple):
    bytes: int  # blocks on disk, not apparent sizes
    inodes: int


def remove(parent: int, name: str, scratch: int, *, should_stop: Callable[[], bool] = lambda: False) -> list[str]:
    """Remove `name` of the directory `parent`; returns what could not be removed (`name: reason`), [] when all is gone.

    `scratch` is a directory on the same file system for moved subdirectories; absence of `name` is success. When
    `should_stop` says so, it returns at the next directory and leaves the rest in `scratch`.
    """
    kept: list[str] = []
    if not _is_directory(parent, name):
        _unlink(parent, name, kept)
        return kept
    queue = [(parent, name)]
    names = (f".removing-{number}" for number in itertools.count(1))
    while queue and not should_stop():
        holder, name = queue.pop()
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=holder)
            try:
                queue += [(scratch, moved) for moved in _empty_out(fd, scratch, names, kept)]
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=holder)
        except OSError as error:
            kept.append(f"{name}: {error.strerror}")
    return kept


def _empty_out(fd: int, scratch: int, names: Iterator[str], kept: list[str]) -> list[str]:
    """Unlink files and empty directories, move the others to `scratch`; returns what those are called there."""
    moved = []
    for below in _unlink_files(fd, kept):
        try:
            os.rmdir(below, dir_fd=fd)
            continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                kept.append(f"{below}: {error.strerror}")
                continue
        try:
            moved.append(_move_out(fd, below, scratch, names))
        except OSError as error:
            kept.append(f"{below}: {error.strerror}")
    return moved


def usage(directory: int) -> TreeUsage:
    """Blocks and inodes of everything in a directory, itself included; what vanishes meanwhile is not counted."""
    total, inodes = 0, 0
    seen: set[int] = set()  # hard links count once
    bases = [os.open(".", _DIRECTORY, dir_fd=directory)]
    opened = 1
    while bases:
        base = bases.pop()
        pending = [b"."]
        status = os.fstat(base)
        total, inodes = total + status.st_blocks * 512, inodes + 1
        while pending:
            path = pending.pop()
            for name, status in _entries(base, path):
                if status.st_nlink > 1 and status.st_mode & 0o170000 != 0o040000:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                if status.st_mode & 0o170000 != 0o040000:
                    total, inodes = total + status.st_blocks * 512, inodes + 1
                elif len(path) + len(name) < _LONG_PATH:
                    pending.append(path + b"/" + name)
                    total, inodes = total + status.st_blocks * 512, inodes + 1
                elif opened < _MAX_BASES:  # deeper than one path can name: go on from there
                    with contextlib.suppress(OSError):
                        bases.append(libc.openat2(base, path + b"/" + name, _DIRECTORY, resolve=_BENEATH))
                        opened += 1
        os.close(base)
    return TreeUsage(total, inodes)


def _entries(base: int, path: bytes) -> list[tuple[bytes, os.stat_result]]:
    found = []
    try:
        fd = libc.openat2(base, path, _DIRECTORY, resolve=_BENEATH)
    except OSError:
        return []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found.append((os.fsencode(entry.name), entry.stat(follow_symlinks=False)))
    finally:
        os.close(fd)
    return found


def _is_directory(parent: int, name: str) -> bool:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & 0o170000 == 0o040000
    except FileNotFoundError:
        return False


def _unlink_files(fd: int, kept: list[str]) -> list[str]:
    """Unlink all that is no directory; returns the names of the directories."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                _unlink(fd, entry.name, kept)
    return directories


def _unlink(parent: int, name: str, kept: list[str]) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        kept.append(f"{name}: {error.strerror}")


def _move_out(fd: int, name: str, scratch: int, names: Iterator[str]) -> str:
    """Move a directory to `scratch`, under the first of `names` that is free there, which is returned."""
    while True:
        free = next(names)
        with contextlib.suppress(FileExistsError):
            libc.rename_noreplace(name, free, source_dir=fd, target_dir=scratch)
            return free
