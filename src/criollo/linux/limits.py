"""The limits of a cgroup as its files hold them: read before a change, written again after one that failed.

What the files hold is what the kernel made of values, so nothing is lost in translation: a weight stays the same weight, and
a limit that nobody ever set stays unset. Blocking.
Source: kernel, Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from criollo.linux.cgroup import Hierarchies, Version

_V1: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "pids": ("pids.max",),
}
_V2: Final = ("cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "cpuset.cpus", "cpuset.mems", "pids.max")
_HUGE_V1, _HUGE_V2 = ".limit_in_bytes", ".max"  # ends of hugetlb files
_NOTHING_SET: Final = "rbps=max wbps=max riops=max wiops=max"  # of one device in io.max
_MAX_BYTES: Final = 1 << 16

Held = Mapping[Path, str]


def read(hierarchies: Hierarchies, path: str, further: Iterable[str] = ()) -> Held:
    """What the limit files of the cgroup `path` hold, and those named `further` (version 2); absent ones are left out."""
    found: dict[Path, str] = {}
    for file in _files(hierarchies, path, further):
        content = _content(file)
        if content is not None:
            found[file] = content
    return found


def put_back(held: Held) -> None:
    """Make the files hold what they held, and no more. Raises as `write`."""
    write({file: _cleared(file, content) if file.name == "io.max" else content for file, content in held.items()})


def write(held: Held) -> None:
    """Make the files hold this. Those that do already are not touched.

    Some take their value only after another has (a memory limit above that of memory and swap): they are tried again as long
    as that helps.

    Raises:
        OSError: the kernel refused, or the cgroup is gone.
    """
    left = {file: content for file, content in held.items() if _content(file) != content}
    while left:
        refused: dict[Path, str] = {}
        trouble: OSError | None = None
        for file, content in left.items():
            try:
                _write(file, content)
            except OSError as error:
                refused[file], trouble = content, error
        if trouble is not None and len(refused) == len(left):
            raise trouble
        left = refused


def _files(hierarchies: Hierarchies, path: str, further: Iterable[str]) -> list[Path]:
    if hierarchies.version is Version.V2:
        place = hierarchies.directory("", path)
        return [] if place is None else [place / name for name in dict.fromkeys((*_V2, *_huge(place, _HUGE_V2), *further))]
    found = []
    for controller, names in _V1.items():
        if (place := hierarchies.directory(controller, path)) is not None:
            found += [place / name for name in names]
    if (place := hierarchies.directory("hugetlb", path)) is not None:
        found += [place / name for name in _huge(place, _HUGE_V1)]
    return found


def _huge(place: Path, end: str) -> list[str]:
    try:
        names = os.listdir(place)
    except OSError:
        return []
    return sorted(name for name in names if name.startswith("hugetlb.") and name.endswith(end))


def _content(file: Path) -> str | None:
    """None for a file that is not there or can only be written."""
    try:
        with open(file, "rb") as opened:
            return opened.read(_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return None


def _write(file: Path, content: str) -> None:
    """A file of one line per device takes one line at a time."""
    for line in content.splitlines() or ["\n"]:
        file.write_text(line, "ascii")


def _cleared(file: Path, content: str) -> str:
    """A file of devices keeps what no line names: those that had no limit get a line that takes theirs away."""
    named = {line.split(" ")[0] for line in content.splitlines()}
    now = (line.split(" ")[0] for line in (_content(file) or "").splitlines())
    return "\n".join([*content.splitlines(), *(f"{device} {_NOTHING_SET}" for device in now if device not in named)])
