"""Whether the kernel killed a process of a container that has ended, because its memory was used up.

Three witnesses: conmon's file `oom`, which may come late or never; the counter of the container's cgroup; and, where that
is gone, the counters around it. systemd takes a scope away as soon as it is empty, while the kernel tells watchers of
`memory.events` at most every 10 ms: conmon often comes too late. But on version 2 a kill is counted in all cgroups above,
too. What the pod's slice has counted, and neither containers that live nor those that ended before account for, is of the
container that has just ended.
Source: kernel, cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (oom_control), CGROUP_FILE_NOTIFY_MIN_INTV; conmon 2.1,
src/cgroup.c.
"""

import os
from pathlib import Path
from typing import Final

from criollo.errors import refuse_scarce
from criollo.linux.cgroup import Hierarchies

EVENTS: Final = "memory.events"
_REMEMBERED: Final = 64  # containers of a pod that ended last: one may be asked about twice


class Kills:
    """Counts kills, container by container. Blocking for the time of a few reads.

    Without a descriptor to look with, all methods raise Exhausted and count nothing: ask again.
    """

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies
        self._slices: dict[Path, _Slice] = {}

    def begin(self, cgroup: str) -> None:
        """A container is waited for: what its slice has counted by now is not its own."""
        place = self._scope(cgroup)
        if place is None or place.parent in self._slices:
            return
        for gone in [each for each in self._slices if not each.is_dir()]:
            del self._slices[gone]
        known = _Slice()
        known.accounted = (kill_count(place.parent / EVENTS) or 0) - known.alive(place.parent)
        self._slices[place.parent] = known

    def of(self, bundle: Path, cgroup: str) -> bool:
        """Whether there was a kill in a container that has ended; may be asked again."""
        told = os.path.lexists(bundle / "oom")
        place = self._scope(cgroup)
        if place is not None:
            return self._slices.setdefault(place.parent, _Slice()).of(place) > 0 or told
        directory = self._hierarchies.directory("memory", cgroup) if cgroup else None
        if told or directory is None:
            return told
        return bool(kill_count(directory / (EVENTS if self._hierarchies.is_unified else "memory.oom_control")))

    def _scope(self, cgroup: str) -> Path | None:
        """Where a scope is, if it is one whose kills are counted above it."""
        if not cgroup.endswith(".scope") or not self._hierarchies.is_unified:
            return None
        return self._hierarchies.directory("memory", cgroup)


class _Slice:
    """The kills in a slice that are accounted for, and those of each container that ended."""

    def __init__(self) -> None:
        self.accounted = 0
        self._ended: dict[str, int] = {}

    def of(self, place: Path) -> int:
        if place.name in self._ended:
            return self._ended[place.name]
        own = kill_count(place / EVENTS)
        if own is None:
            total = kill_count(place.parent / EVENTS) or 0
            own = max(0, total - self.alive(place.parent) - self.accounted)
        self.accounted += own
        self._ended[place.name] = own
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return own

    def alive(self, place: Path) -> int:
        """The kills in containers of a slice that have not ended."""
        try:
            names = [name for name in os.listdir(place) if name.endswith(".scope") and name not in self._ended]
        except OSError as error:
            _refuse_scarce(error, place)
            return 0
        return sum(kill_count(place / name / EVENTS) or 0 for name in names)


def events_file(hierarchies: Hierarchies, cgroup: str) -> Path | None:
    """Where version 2 counts the kills in a cgroup, and tells who watches it; None on version 1, and without a cgroup."""
    place = hierarchies.directory("memory", cgroup) if cgroup and hierarchies.is_unified else None
    return place and place / EVENTS


def kill_count(file: Path) -> int | None:
    """The kills in a cgroup; None when it is gone, or does not say.

    Raises:
        Exhausted: no descriptor is left to look with.
    """
    try:
        with open(file, "rb") as events:
            lines = events.read(4096).splitlines()
    except OSError as error:
        _refuse_scarce(error, file)
        return None
    for line in lines:
        key, _, value = line.partition(b" ")
        if key == b"oom_kill" and value.isdigit():
            return int(value)
    return None


def _refuse_scarce(error: OSError, place: Path) -> None:
    refuse_scarce(error, f"cannot see the kills in {place.parent}")
