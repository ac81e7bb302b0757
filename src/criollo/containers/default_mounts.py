"""Mounts that the node gives to every container: mounts.conf, as containers-mounts.conf(5) has it.

    /usr/share/secrets:/run/secrets     SOURCE:DESTINATION, or one path for both; # begins a comment

`default_mounts_file` if it is set, else the first of FILES that is there. What a source holds is copied for each container,
links followed, and mounted read-only: its own copy, which ends with it, and which it cannot fill (CVE-2020-8557).
Blocking: for a thread.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import Exhausted, Invalid, explain
from criollo.linux import files
from criollo.oci import runtime_spec
from criollo.specgen import paths

FILES: Final = ("/etc/containers/mounts.conf", "/usr/share/containers/mounts.conf")
MOST_BYTES: Final = 16 << 20  # of one container
MOST_ENTRIES: Final = 10_000

_LIMIT_BYTES: Final = 1 << 20
_OPTIONS: Final = ("bind", "rprivate", "ro", "nosuid", "nodev")


class Line(NamedTuple):
    """One line of the file."""

    source: str
    destination: str


def parse_mounts(text: str, name: str) -> list[Line]:
    """The lines of a file; `name` stands in errors.

    Raises:
        Invalid: a line is no pair of absolute paths, or two have one destination.
    """
    found: dict[str, Line] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        field = f"{name} line {number}"
        parts = line.split(":")
        if len(parts) > 2:
            raise Invalid(field, line, "/source:/destination")
        source, destination = (paths.check_absolute(part.strip(), field) for part in (parts[0], parts[-1]))
        paths.check_outside_kernel(destination, field)
        if destination == "/" or destination in found:
            raise Invalid(field, destination, "each destination once, and not /")
        found[destination] = Line(source, destination)
    return list(found.values())


def given(configured: str, bundle: Path, owner: tuple[int, int]) -> list[runtime_spec.Mount]:
    """The mounts for one container, their sources copied below its bundle; none where no file says so.

    Raises:
        Invalid: the file is malformed, or a source is not there.
        Exhausted: the sources are too much.
    """
    lines = _read((configured,) if configured else FILES)
    left = _Left(MOST_BYTES, MOST_ENTRIES)
    mounts = []
    for number, line in enumerate(lines):
        target = bundle / "defaults" / str(number)
        with explain(f"copy default mount {line.source}"):
            os.makedirs(target.parent, 0o700, exist_ok=True)
            try:
                left = _copy(line.source, target, owner, left)
            except FileNotFoundError as error:
                raise Invalid("default_mounts_file", line.source, f"an existing source for {line.destination}") from error
        mounts.append(runtime_spec.Mount(destination=line.destination, type="bind", source=str(target), options=_OPTIONS))
    return mounts


class _Left(NamedTuple):
    """What may still be copied."""

    bytes: int
    entries: int


def _read(candidates: Sequence[str]) -> list[Line]:
    for path in candidates:
        try:
            return parse_mounts(files.read_limited(path, _LIMIT_BYTES).decode("utf-8", "replace"), path)
        except FileNotFoundError:
            continue
    return []


def _copy(source: str, target: Path, owner: tuple[int, int], left: _Left) -> _Left:
    """A file or a directory with all below it. Sockets, devices and links to nowhere are passed over."""
    status = os.stat(source)
    if stat.S_ISREG(status.st_mode):
        return _copy_file(source, target, owner, left)
    if not stat.S_ISDIR(status.st_mode):
        raise Invalid("default_mounts_file", source, "a file or a directory")
    os.mkdir(target, 0o755)
    _finish(target, status, owner)
    seen = {(status.st_dev, status.st_ino)}
    for directory, below in _directories(source, target):
        for name in sorted(os.listdir(directory)):
            path, place = os.path.join(directory, name), below / name
            found = _look(path)
            if found is None:
                continue
            if stat.S_ISREG(found.st_mode):
                left = _copy_file(path, place, owner, left)
            elif stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                os.mkdir(place, 0o755)
                _finish(place, found, owner)
                left = _less(left, 0, source)
    return left


def _directories(source: str, target: Path) -> Iterator[tuple[str, Path]]:
    """Every directory of the source that has its place in the target, parents first."""
    open_ones = [(source, target)]
    while open_ones:
        directory, below = open_ones.pop()
        yield directory, below
        open_ones += [(os.path.join(directory, place.name), place) for place in below.iterdir() if place.is_dir()]


def _copy_file(source: str, target: Path, owner: tuple[int, int], left: _Left) -> _Left:
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb") as reading, open(target, "xb") as writing:
        status = os.fstat(fd)
        left = _less(left, status.st_size, source)
        shutil.copyfileobj(reading, writing)
    _finish(target, status, owner)
    return left


def _less(left: _Left, size_bytes: int, source: str) -> _Left:
    rest = _Left(left.bytes - size_bytes, left.entries - 1)
    if min(rest) < 0:
        raise Exhausted(f"cannot copy default mount {source}: more than {MOST_BYTES >> 20} MiB or {MOST_ENTRIES} files")
    return rest


def _finish(target: Path, status: os.stat_result, owner: tuple[int, int]) -> None:
    os.chmod(target, stat.S_IMODE(status.st_mode) & 0o777)
    files.own(target, owner)


def _look(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
