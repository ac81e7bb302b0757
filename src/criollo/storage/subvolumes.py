"""Subvolumes of btrfs that must go: deleted as one thing, with those that a container has made in them (blocking).

Who may write to a directory may make subvolumes in it, so a container's writable layer can hold some. One with another
inside is not deleted by the kernel; those inside are looked for and go first, deepest first.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Final

from criollo.linux import btrfs, libc

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH: Final = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV | libc.RESOLVE_NO_MAGICLINKS
_OURS: Final = ("diff", "tree")  # of a writable layer, of an image's tree


def destroy_below(parent: int, name: str, should_stop: Callable[[], bool]) -> list[str]:
    """Destroy the subvolumes that our drivers make in the directory `name`; returns what resists (`name: reason`).

    Quick and without effect where there are none.
    """
    kept: list[str] = []
    with contextlib.suppress(OSError), _opened(parent, name) as place:
        if not btrfs.is_btrfs(place):
            return kept
        for each in _OURS:
            try:
                destroy(place, each, should_stop)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    kept.append(f"{name}/{each}: {error.strerror}")
    return kept


def destroy(parent: int, name: str, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Destroy a subvolume with all that are in it; nothing happens to a plain directory.

    Raises:
        OSError: the kernel refused.
    """
    with _opened(parent, name) as fd:
        if not btrfs.is_subvolume(fd):
            return
        btrfs.set_read_only(fd, False)
    try:
        btrfs.destroy(parent, name)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        with _opened(parent, name) as fd:
            _destroy_inner(fd, should_stop)
        btrfs.destroy(parent, name)


def _destroy_inner(top: int, should_stop: Callable[[], bool]) -> None:
    """Destroy the subvolumes below an open one. A read-only one inside becomes writable first, else nothing in it can go."""
    found: list[str] = []
    pending = ["."]
    while pending and not should_stop():
        path = pending.pop()
        try:
            directory = libc.openat2(top, path, _DIRECTORY, resolve=_BENEATH)
        except OSError:
            continue  # a path too long, or gone
        try:
            if path != "." and btrfs.is_subvolume(directory):
                btrfs.set_read_only(directory, False)
                found.append(path)
            with os.scandir(directory) as entries:
                pending += [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        finally:
            os.close(directory)
    for path in sorted(found, key=len, reverse=True):
        above, _, base = path.rpartition("/")
        holder = libc.openat2(top, above, _DIRECTORY, resolve=_BENEATH)
        try:
            btrfs.destroy(holder, base)
        finally:
            os.close(holder)


@contextlib.contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)
