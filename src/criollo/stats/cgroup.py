"""What the kernel counts for one cgroup: cpu, memory, swap, processes, pressure. Versions 1 and 2.

Parsers are pure and take what the files hold; a field that a kernel lacks is None. `read` is blocking and never raises
for a cgroup that is vanishing: it answers None.
Source: kernel, Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, accounting/psi.rst.
"""

import os
import re
from typing import Final, NamedTuple

from criollo.linux.cgroup import Hierarchies, Version

_NO_LIMIT: Final = 1 << 60  # version 1 says "no limit" by a number close to 2^63
_SHARE: Final = rb"=([0-9]{1,9}\.[0-9]{1,9}) "
_PSI: Final = re.compile(rb"(some|full) avg10" + _SHARE + rb"avg60" + _SHARE + rb"avg300" + _SHARE + rb"total=([0-9]{1,19})")
_NUMBER: Final = re.compile(rb"[0-9]{1,19}")
_WANTED_V2: Final = re.compile(rb"^(inactive_file|anon|pgfault|pgmajfault) ([0-9]{1,19})$", re.MULTILINE)
_WANTED_V1: Final = re.compile(
    rb"^(total_inactive_file|total_rss|total_pgfault|total_pgmajfault|total_swap) ([0-9]{1,19})$", re.MULTILINE
)


class Pressure(NamedTuple):
    """One line of a pressure file: shares of time in percent, `total_us` since the cgroup was made."""

    avg10: float
    avg60: float
    avg300: float
    total_us: int


class Stalls(NamedTuple):
    """Time that some, or all, tasks waited for a resource."""

    some: Pressure | None
    full: Pressure | None


class Memory(NamedTuple):
    """Bytes. `working_set` is usage without inactive file cache; `limit` is None without one."""

    usage: int
    working_set: int
    rss: int
    limit: int | None
    page_faults: int
    major_page_faults: int


class Swap(NamedTuple):
    """Bytes; `limit` is None without one."""

    usage: int
    limit: int | None


class CgroupStats(NamedTuple):
    """One reading. A controller that is not mounted leaves None."""

    cpu_ns: int | None
    memory: Memory | None
    swap: Swap | None
    pids: int | None
    cpu_stalls: Stalls | None
    memory_stalls: Stalls | None
    io_stalls: Stalls | None


def parse_number(content: bytes | None) -> int | None:
    """A file with one number; None for `max`, junk and a file that is not there."""
    stripped = b"" if content is None else content.strip()
    return int(stripped) if _NUMBER.fullmatch(stripped) else None


def parse_keyed(content: bytes | None) -> dict[bytes, int]:
    """A file of `key number` lines; others are skipped."""
    found = {}
    for line in (content or b"").splitlines():
        key, _, value = line.partition(b" ")
        if _NUMBER.fullmatch(value):
            found[key] = int(value)
    return found


def _some(content: bytes | None, wanted: re.Pattern[bytes]) -> dict[bytes, int]:
    """Of a long file of `key number` lines those that `wanted` finds."""
    return {key: int(value) for key, value in wanted.findall(content or b"")}


def parse_pressure(content: bytes | None) -> Stalls | None:
    """A pressure file; None when it is not there or holds nothing of the kind (`psi=0`)."""
    found = {
        match[1]: Pressure(float(match[2]), float(match[3]), float(match[4]), int(match[5]))
        for match in _PSI.finditer(content or b"")
    }
    return Stalls(found.get(b"some"), found.get(b"full")) if found else None


def read(hierarchies: Hierarchies, path: str) -> CgroupStats | None:
    """The counters of the cgroup `path` now; None when it is gone (blocking, about 0.1 ms)."""
    is_v2 = hierarchies.version is Version.V2
    below = path.lstrip("/")
    unified = "" if hierarchies.unified is None else f"{hierarchies.unified}/{below}"
    cpu_ns, memory, swap = (_read_v2(unified) if unified else (None, None, None)) if is_v2 else _read_v1(hierarchies, below)
    if cpu_ns is None and memory is None:
        return None
    return CgroupStats(
        cpu_ns=cpu_ns,
        memory=memory,
        swap=swap,
        pids=parse_number(_content(_place(hierarchies, "pids", below), "pids.current")),
        cpu_stalls=parse_pressure(_content(unified, "cpu.pressure")),
        memory_stalls=parse_pressure(_content(unified, "memory.pressure")),
        io_stalls=parse_pressure(_content(unified, "io.pressure")),
    )


def _place(hierarchies: Hierarchies, controller: str, below: str) -> str:
    """Where a controller's files of a cgroup are, empty where none; strings, because a path object costs as much as a read."""
    root = hierarchies.unified if hierarchies.version is Version.V2 else hierarchies.controllers.get(controller)
    return "" if root is None else f"{root}/{below}"


def _read_v2(place: str) -> tuple[int | None, Memory | None, Swap | None]:
    cpu_us = parse_keyed(_content(place, "cpu.stat")).get(b"usage_usec")
    usage = parse_number(_content(place, "memory.current"))
    counters = _some(_content(place, "memory.stat"), _WANTED_V2)
    memory = None
    if usage is not None:
        memory = Memory(
            usage=usage,
            working_set=max(0, usage - counters.get(b"inactive_file", 0)),
            rss=counters.get(b"anon", 0),
            limit=parse_number(_content(place, "memory.max")),
            page_faults=counters.get(b"pgfault", 0),
            major_page_faults=counters.get(b"pgmajfault", 0),
        )
    swapped = parse_number(_content(place, "memory.swap.current"))
    swap = None if swapped is None else Swap(swapped, parse_number(_content(place, "memory.swap.max")))
    return None if cpu_us is None else cpu_us * 1000, memory, swap


def _read_v1(hierarchies: Hierarchies, below: str) -> tuple[int | None, Memory | None, Swap | None]:
    cpu_ns = parse_number(_content(_place(hierarchies, "cpuacct", below), "cpuacct.usage"))
    place = _place(hierarchies, "memory", below)
    usage = parse_number(_content(place, "memory.usage_in_bytes"))
    if usage is None:
        return cpu_ns, None, None
    counters = _some(_content(place, "memory.stat"), _WANTED_V1)
    limit = _limit_v1(_content(place, "memory.limit_in_bytes"))
    memory = Memory(
        usage=usage,
        working_set=max(0, usage - counters.get(b"total_inactive_file", 0)),
        rss=counters.get(b"total_rss", 0),
        limit=limit,
        page_faults=counters.get(b"total_pgfault", 0),
        major_page_faults=counters.get(b"total_pgmajfault", 0),
    )
    both_limit = _limit_v1(_content(place, "memory.memsw.limit_in_bytes"))
    if b"total_swap" not in counters:
        return cpu_ns, memory, None
    return cpu_ns, memory, Swap(counters[b"total_swap"], None if both_limit is None else max(0, both_limit - (limit or 0)))


def _limit_v1(content: bytes | None) -> int | None:
    limit = parse_number(content)
    return None if limit is None or limit >= _NO_LIMIT else limit


def _content(place: str, name: str) -> bytes | None:
    if not place:
        return None
    try:
        fd = os.open(f"{place}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 1 << 16)
        finally:
            os.close(fd)
    except OSError:  # ENOENT: gone or not built in; ENODEV: it went while we read
        return None
