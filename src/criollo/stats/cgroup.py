"""What the kernel counts for one cgroup: cpu, memory, swap, processes, pressure. Versions 1 and 2.

Parsers are pure and take what the files hold, None for one that is not there; a field that a kernel lacks is None.
Source: kernel, Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, accounting/psi.rst.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_NO_LIMIT: Final = 1 << 60  # version 1 says "no limit" by a number close to 2^63
_DIGITS: Final = 19  # of the largest number there is
_SHARE: Final = rb"=([0-9]{1,9}\.[0-9]{1,9}) "
_TIMES: Final = rb" avg10" + _SHARE + rb"avg60" + _SHARE + rb"avg300" + _SHARE + rb"total=([0-9]{1,19})\n"
_PSI: Final = re.compile(rb"some" + _TIMES + rb"(?:full" + _TIMES + rb")?")  # Linux before 5.13 has no `full` of cpu

PRESSURES: Final = ("cpu.pressure", "memory.pressure", "io.pressure")
V1: Final = {  # controller to the files that are read, in the order of `parse_v1`
    "cpuacct": ("cpuacct.usage",),
    "memory": ("memory.usage_in_bytes", "memory.stat", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.current",),
}
V2: Final = (  # likewise, of `parse_v2`
    "cpu.stat",
    "memory.current",
    "memory.stat",
    "memory.max",
    "memory.swap.current",
    "memory.swap.max",
    "pids.current",
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


Content = bytes | None


def parse_number(content: Content) -> int | None:
    """A file with one number; None for `max`, junk and a file that is not there."""
    stripped = b"" if content is None else content.strip()
    return int(stripped) if stripped.isdigit() and len(stripped) <= _DIGITS else None


def parse_keyed(content: Content) -> dict[bytes, int]:
    """A file of `key number` lines; others are skipped."""
    found = {}
    for line in (content or b"").splitlines():
        key, _, value = line.partition(b" ")
        if value.isdigit() and len(value) <= _DIGITS:
            found[key] = int(value)
    return found


def find_keyed(lines: bytes, key: bytes) -> int:
    """The number of `\\nkey ` in a long file of such lines that begins with a line feed; 0 without one.

    Four such searches take a fifth of the time that parsing all lines takes.
    """
    start = lines.find(key)
    if start < 0:
        return 0
    start += len(key)
    end = lines.find(b"\n", start)
    word = lines[start : end if end >= 0 else None]
    return int(word) if word.isdigit() and len(word) <= _DIGITS else 0


def parse_pressure(content: Content) -> Stalls | None:
    """A pressure file; None when it is not there or holds nothing of the kind (`psi=0`)."""
    match = _PSI.fullmatch(content or b"")
    if match is None:
        return None
    some10, some60, some300, some_us, full10, full60, full300, full_us = match.groups()
    some = Pressure(float(some10), float(some60), float(some300), int(some_us))
    return Stalls(some, None if full_us is None else Pressure(float(full10), float(full60), float(full300), int(full_us)))


def parse_v1(contents: Sequence[Content], pressures: Sequence[Content]) -> CgroupStats | None:
    """One reading of the files of `V1` and `PRESSURES`; None when neither cpu nor memory is counted: the cgroup is gone."""
    cpu, usage, counters, limit, both_limit, pids = contents
    memory, swap, used = None, None, parse_number(usage)
    if used is not None:
        lines, bound = b"\n" + (counters or b""), _limit_v1(limit)
        memory = Memory(
            usage=used,
            working_set=max(0, used - find_keyed(lines, b"\ntotal_inactive_file ")),
            rss=find_keyed(lines, b"\ntotal_rss "),
            limit=bound,
            page_faults=find_keyed(lines, b"\ntotal_pgfault "),
            major_page_faults=find_keyed(lines, b"\ntotal_pgmajfault "),
        )
        if b"\ntotal_swap " in lines:
            both = _limit_v1(both_limit)
            swap = Swap(find_keyed(lines, b"\ntotal_swap "), None if both is None else max(0, both - (bound or 0)))
    return _reading(parse_number(cpu), memory, swap, pids, pressures)


def parse_v2(contents: Sequence[Content], pressures: Sequence[Content]) -> CgroupStats | None:
    """One reading of the files of `V2` and `PRESSURES`; None when neither cpu nor memory is counted: the cgroup is gone."""
    cpu, usage, counters, limit, swapped, swap_limit, pids = contents
    memory, used, swap_used = None, parse_number(usage), parse_number(swapped)
    if used is not None:
        lines = b"\n" + (counters or b"")
        memory = Memory(
            usage=used,
            working_set=max(0, used - find_keyed(lines, b"\ninactive_file ")),
            rss=find_keyed(lines, b"\nanon "),
            limit=parse_number(limit),
            page_faults=find_keyed(lines, b"\npgfault "),
            major_page_faults=find_keyed(lines, b"\npgmajfault "),
        )
    swap = None if swap_used is None else Swap(swap_used, parse_number(swap_limit))
    cpu_ns = None if cpu is None else find_keyed(b"\n" + cpu, b"\nusage_usec ") * 1000
    return _reading(cpu_ns, memory, swap, pids, pressures)


def _reading(
    cpu_ns: int | None, memory: Memory | None, swap: Swap | None, pids: Content, pressures: Sequence[Content]
) -> CgroupStats | None:
    if cpu_ns is None and memory is None:
        return None
    return CgroupStats(
        cpu_ns=cpu_ns,
        memory=memory,
        swap=swap,
        pids=parse_number(pids),
        cpu_stalls=parse_pressure(pressures[0]),
        memory_stalls=parse_pressure(pressures[1]),
        io_stalls=parse_pressure(pressures[2]),
    )


def _limit_v1(content: Content) -> int | None:
    limit = parse_number(content)
    return None if limit is None or limit >= _NO_LIMIT else limit
