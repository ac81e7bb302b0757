"""The job `duplicate`: a copy of what a path of this node has, links followed. The source may hang, so it runs where it can
be killed.

Sockets, devices and links to nowhere are passed over; a directory that is met again (a link to what is above) is not.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from criollo.errors import Exhausted, Invalid, explain
from criollo.linux import files, selinux
from criollo.workers.messages import Duplicated, DuplicateJob

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _Left(NamedTuple):
    """What may still be copied."""

    bytes: int
    entries: int


def duplicate(job: DuplicateJob) -> Duplicated:
    """Copy a file, or a directory with all below it.

    Raises:
        Invalid: the source is neither.
        Exhausted: it is more than the limits.
        CriolloError: the host refused.
    """
    with explain(f"copy {job.path}"):
        os.makedirs(os.path.dirname(job.target), 0o700, exist_ok=True)
        try:
            status = os.stat(job.path)
        except FileNotFoundError:
            return Duplicated(missing=True)
        left = _Left(job.limit_bytes, job.limit_entries)
        if stat.S_ISREG(status.st_mode):
            left = _copy_file(job, job.path, job.target, left)
        elif stat.S_ISDIR(status.st_mode):
            left = _copy_tree(job, status, left)
        else:
            raise Invalid("source of a copy", job.path, "a file or a directory")
    return Duplicated(left_bytes=left.bytes, left_entries=left.entries)


def _copy_tree(job: DuplicateJob, status: os.stat_result, left: _Left) -> _Left:
    os.mkdir(job.target, 0o755)
    _finish(job, job.target, status)
    seen = {(status.st_dev, status.st_ino)}
    for directory, below in _directories(job.path, job.target):
        for name in sorted(os.listdir(directory)):
            path, place = os.path.join(directory, name), os.path.join(below, name)
            found = _look(path)
            if found is None:
                continue
            if stat.S_ISREG(found.st_mode):
                left = _copy_file(job, path, place, left)
            elif stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                os.mkdir(place, 0o755)
                _finish(job, place, found)
                left = _less(job, left, 0)
    return left


def _directories(source: str, target: str) -> Iterator[tuple[str, str]]:
    """Every directory of the source that has its place in the target, parents first."""
    open_ones = [(source, target)]
    while open_ones:
        directory, below = open_ones.pop()
        yield directory, below
        with os.scandir(below) as entries:
            open_ones += [(os.path.join(directory, each.name), each.path) for each in entries if each.is_dir()]


def _copy_file(job: DuplicateJob, source: str, target: str, left: _Left) -> _Left:
    with open(os.open(source, _READ), "rb") as reading, open(target, "xb") as writing:
        status = os.fstat(reading.fileno())
        left = _less(job, left, status.st_size)
        shutil.copyfileobj(reading, writing)
    _finish(job, target, status)
    return left


def _less(job: DuplicateJob, left: _Left, size_bytes: int) -> _Left:
    rest = _Left(left.bytes - size_bytes, left.entries - 1)
    if min(rest) < 0:
        raise Exhausted(f"cannot copy {job.path}: more than its limit of bytes or files")
    return rest


def _finish(job: DuplicateJob, target: str, status: os.stat_result) -> None:
    os.chmod(target, stat.S_IMODE(status.st_mode) & 0o777)
    files.own(target, job.owner)
    if job.label:
        os.setxattr(target, selinux.XATTR, job.label.encode() + b"\0", follow_symlinks=False)


def _look(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
