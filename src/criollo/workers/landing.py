"""Where a copy goes: what docker and podman make of the same words.

    source              target is a directory    target is a file        nothing there
    a file              below it, same name      replaced                made; refused when the path ends in `/`
    a directory         below it, same name      refused                 made, with the content
    DIRECTORY/.         its content, there       refused                 made, with the content
    an archive          unpacked there           refused                 refused

Nothing above the target is made: a missing directory there is an error. Links on the way and at the end are followed.
"""

import contextlib
import os
import stat
from enum import StrEnum
from typing import NamedTuple

from criollo.errors import HostFailed, explain
from criollo.workers import live


class Shape(StrEnum):
    """What is copied."""

    FILE = "file"
    DIRECTORY = "directory"
    CONTENT = "content"
    ARCHIVE = "archive"


class Landing(NamedTuple):
    """`top` is an open directory; `name` what the one file is called there; `is_new`: the directory was made for this."""

    top: int
    name: bytes = b""
    is_new: bool = False


def land(path: bytes, shape: Shape, base: bytes) -> Landing:
    """Find, and for a directory make, the place for a copy to `path`; `base` is the last name of the source.

    Raises:
        HostFailed: it cannot go there; the text says why.
    """
    with explain(f"copy to {os.fsdecode(path)!r}"):
        if not path:
            raise _refused(path, "the path is empty")
        bare = path.rstrip(b"/.")
        try:
            holder, name = live.final(path)
        except FileNotFoundError:
            if not bare or not path.endswith((b"/", b"/.")):
                raise
            if shape is Shape.FILE:
                why = "there is no such directory; make it first, or leave the '/' at the end"
                raise _refused(path, why) from None
            holder, name = live.final(bare)
        try:
            live.refuse_kernels(holder, path)
            return _decide(holder, name, path, shape, base)
        finally:
            os.close(holder)


def _decide(holder: int, name: bytes, path: bytes, shape: Shape, base: bytes) -> Landing:
    there = _kind(holder, name) if name else stat.S_IFDIR
    if there == stat.S_IFDIR:
        return _inside(_open(holder, name or b"."), path, shape, base)
    if shape is Shape.FILE:
        return Landing(os.dup(holder), name)
    if there:
        raise _refused(path, "it is a file, and a directory cannot replace it")
    if shape is Shape.ARCHIVE:
        raise _refused(path, "there is no such directory, and an archive is unpacked into one")
    return _directory(holder, name, path)


def _inside(directory: int, path: bytes, shape: Shape, base: bytes) -> Landing:
    """For a target that is a directory, which is taken over."""
    try:
        live.refuse_kernels(directory, path)
        if shape is Shape.DIRECTORY:
            return _directory(directory, base, path)
        return Landing(os.dup(directory), base if shape is Shape.FILE else b"")
    finally:
        os.close(directory)


def _directory(holder: int, name: bytes, path: bytes) -> Landing:
    """The directory `name`, made if it is not there."""
    is_new = True
    try:
        os.mkdir(name, 0o700, dir_fd=holder)
    except FileExistsError:
        is_new = False
        if _kind(holder, name) != stat.S_IFDIR:
            raise _refused(path, f"{os.fsdecode(name)!r} is there, and no directory") from None
    return Landing(_open(holder, name), is_new=is_new)


def _open(holder: int, name: bytes) -> int:
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)


def _kind(holder: int, name: bytes) -> int:
    """The type bits of what has a name; 0 for nothing."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IFMT(os.stat(name, dir_fd=holder, follow_symlinks=False).st_mode)
    return 0


def _refused(path: bytes, why: str) -> HostFailed:
    return HostFailed(f"cannot copy to {os.fsdecode(path)!r}: {why}")
