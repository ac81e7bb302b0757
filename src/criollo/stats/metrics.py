"""The values of metrics, read from cgroups, /proc and interfaces. Reading blocks; what is not there is left out.

Numbers are those of both cgroup versions, as far as these have them. Source: kernel, Documentation/admin-guide/cgroup-v2.rst,
cgroup-v1/{cpuacct,memory,blkio-controller,hugetlb}.rst, proc(5).
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from criollo.linux.cgroup import Hierarchies, Version
from criollo.stats.catalogue import Value
from criollo.stats.cgroup import CgroupStats, parse_keyed, parse_number
from criollo.stats.network import Interface
from criollo.stats.opened import directory_v2, read_once

_MAX_BYTES: Final = 1 << 16
_MAX_PROCESSES: Final = 1000  # of one container whose descriptors are counted
_MAX_DESCRIPTORS: Final = 100_000
_MAX_CGROUPS: Final = 1000  # below that of one container, which may make as many as it likes
_NS: Final = 1_000_000_000
_US: Final = 1_000_000
_IO_V1: Final = re.compile(rb"(\d{1,9}):(\d{1,9}) ([A-Z][a-z]{1,9}) (\d{1,19})")
_IO_V2: Final = re.compile(rb"(\d{1,9}):(\d{1,9})((?: [a-z_.]{1,20}=[0-9.]{1,20}){1,40})")
_HUGE: Final = re.compile(r"hugetlb\.([0-9]+[KMG]B)\.(?:usage_in_bytes|current)")
_OPEN_FILES: Final = re.compile(rb"^Max open files +([0-9]{1,19}|unlimited) ", re.MULTILINE)


class MetricSource:
    """Where the values of one container are: its cgroup, and `pid`, its first process."""

    def __init__(self, hierarchies: Hierarchies, path: str, pid: int) -> None:
        self.hierarchies, self.path, self.pid = hierarchies, path, pid
        self.is_v2 = hierarchies.version is Version.V2
        self._unified = directory_v2(str(hierarchies.unified), path) if self.is_v2 else ""

    def directory(self, controller: str) -> str:
        """Where a controller's files are; empty where the kernel has none."""
        if self.is_v2:
            return self._unified
        root = self.hierarchies.controllers.get(controller)
        return "" if root is None else f"{root}/{self.path.lstrip('/')}"

    def content(self, controller: str, name: str) -> bytes | None:
        """A file of a controller; None when it is not there."""
        place = self.directory(controller)
        return _content(f"{place}/{name}") if place else None

    def number(self, controller: str, name: str) -> int | None:
        return parse_number(self.content(controller, name))

    def keyed(self, controller: str, name: str) -> dict[bytes, int]:
        return parse_keyed(self.content(controller, name))


def read_metrics(source: MetricSource, groups: frozenset[str]) -> list[Value] | None:
    """What a container's cgroup and processes tell for these groups; None when it is gone."""
    stats = read_once(source.hierarchies, source.path)
    if stats is None:
        return None
    return [value for group, read in _READERS.items() if group in groups for value in read(source, stats)]


def network_metrics(interfaces: Sequence[Interface]) -> list[Value]:
    """What the interfaces of a pod tell."""
    found = []
    for each in interfaces:
        counted = {
            "receive_bytes": each.rx_bytes,
            "receive_packets": each.rx_packets,
            "receive_packets_dropped": each.rx_dropped,
            "receive_errors": each.rx_errors,
            "transmit_bytes": each.tx_bytes,
            "transmit_packets": each.tx_packets,
            "transmit_packets_dropped": each.tx_dropped,
            "transmit_errors": each.tx_errors,
        }
        found += [Value(f"network_{kind}_total", (each.name,), value) for kind, value in counted.items()]
    return found


def _known(values: Mapping[str, int | None]) -> Iterator[Value]:
    for name, value in values.items():
        if value is not None:
            yield Value(name, (), value)


def _cpu(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    counters = source.keyed("cpu", "cpu.stat")
    if source.is_v2:
        user, system = (counters.get(key, 0) // _US for key in (b"user_usec", b"system_usec"))
        throttled_s = counters.get(b"throttled_usec", 0) // _US
    else:
        user, system = ((source.number("cpuacct", f"cpuacct.usage_{kind}") or 0) // _NS for kind in ("user", "sys"))
        throttled_s = counters.get(b"throttled_time", 0) // _NS
    each = [] if source.is_v2 else [int(word) for word in (source.content("cpuacct", "cpuacct.usage_percpu") or b"").split()]
    for number, used_ns in enumerate(each):
        if used_ns:
            yield Value("cpu_usage_seconds_total", (f"cpu{number:02d}",), used_ns // _NS)
    if not each and stats.cpu_ns:
        yield Value("cpu_usage_seconds_total", ("total",), stats.cpu_ns // _NS)
    yield from _known(
        {
            "cpu_user_seconds_total": user,
            "cpu_system_seconds_total": system,
            "cpu_cfs_periods_total": counters.get(b"nr_periods"),
            "cpu_cfs_throttled_periods_total": counters.get(b"nr_throttled"),
            "cpu_cfs_throttled_seconds_total": throttled_s,
        }
    )


def _memory(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    memory = stats.memory
    if memory is None:
        return
    counters = source.keyed("memory", "memory.stat")
    if source.is_v2:
        named = {
            "memory_cache": counters.get(b"file"),
            "memory_kernel_usage": counters.get(b"kernel"),
            "memory_mapped_file": counters.get(b"file_mapped"),
            "memory_failcnt": source.keyed("memory", "memory.events").get(b"max"),
            "memory_max_usage_bytes": source.number("memory", "memory.peak"),
        }
    else:
        named = {
            "memory_cache": counters.get(b"total_cache"),
            "memory_kernel_usage": source.number("memory", "memory.kmem.usage_in_bytes"),
            "memory_mapped_file": counters.get(b"total_mapped_file"),
            "memory_failcnt": source.number("memory", "memory.failcnt"),
            "memory_max_usage_bytes": source.number("memory", "memory.max_usage_in_bytes"),
        }
    yield from _known(
        named
        | {
            "memory_rss": memory.rss,
            "memory_swap": stats.swap.usage if stats.swap else 0,
            "memory_usage_bytes": memory.usage,
            "memory_working_set_bytes": memory.working_set,
        }
    )
    own = {"pgfault": counters.get(b"pgfault", 0), "pgmajfault": counters.get(b"pgmajfault", 0)}
    both = {"pgfault": memory.page_faults, "pgmajfault": memory.major_page_faults}
    for scope, faults in (("container", own), ("hierarchy", both)):
        for kind, count in faults.items():
            yield Value("memory_failures_total", (kind, scope), count)


def _oom(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    name = "memory.events" if source.is_v2 else "memory.oom_control"
    yield from _known({"oom_events_total": source.keyed("memory", name).get(b"oom_kill")})


def _disk_io(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    if source.is_v2:
        pieces = _io_v2(source.content("io", "io.stat") or b"")
    else:
        pieces = [
            (major, minor, operation, kind, value)
            for kind, name in (("bytes", "io_service_bytes"), ("", "io_serviced"))
            for major, minor, operation, value in _io_v1(source, name)
        ]
    for major, minor, operation, kind, value in pieces:
        device = _device_name(major, minor)
        if kind:
            yield Value("blkio_device_usage_total", (device, str(major), str(minor), operation), value)
        if operation in ("read", "write"):
            name = f"fs_{operation}s_{kind}_total" if kind else f"fs_{operation}s_total"
            yield Value(name, (device,), value)


def _io_v1(source: MetricSource, name: str) -> list[tuple[int, int, str, int]]:
    content = source.content("blkio", f"blkio.throttle.{name}_recursive") or b""
    return [
        (int(major), int(minor), kind.decode().lower(), int(value)) for major, minor, kind, value in _IO_V1.findall(content)
    ]


def _io_v2(content: bytes) -> list[tuple[int, int, str, str, int]]:
    found = []
    for major, minor, rest in _IO_V2.findall(content):
        counters = dict(word.split(b"=") for word in rest.split())
        for key, operation in ((b"r", "read"), (b"w", "write"), (b"d", "discard")):
            for unit, kind in ((b"bytes", "bytes"), (b"ios", "")):
                value = parse_number(counters.get(key + unit))
                if value is not None:
                    found.append((int(major), int(minor), operation, kind, value))
    return found


def _device_name(major: int, minor: int) -> str:
    try:
        return f"/dev/{os.path.basename(os.readlink(f'/sys/dev/block/{major}:{minor}'))}"
    except OSError:
        return f"{major}:{minor}"


def _hugetlb(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    place = source.directory("hugetlb")
    try:
        names = sorted(os.listdir(place)) if place else []
    except OSError:
        return
    for name in names:
        match = _HUGE.fullmatch(name)
        if match is None:
            continue
        for metric, file in (("usage", name), ("max_usage", f"hugetlb.{match[1]}.max_usage_in_bytes")):
            value = parse_number(_content(f"{place}/{file}"))
            if value is not None:
                yield Value(f"hugetlb_{metric}_bytes", (match[1],), value)


def _pressure(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    for resource, stalls in (("cpu", stats.cpu_stalls), ("memory", stats.memory_stalls), ("io", stats.io_stalls)):
        for kind, line in (("stalled", stalls and stalls.full), ("waiting", stalls and stalls.some)):
            if line:
                yield Value(f"pressure_{resource}_{kind}_seconds_total", (), line.total_us // _US)


def _process(source: MetricSource, stats: CgroupStats) -> Iterator[Value]:
    pids = _processes(source.directory("pids"))
    descriptors, sockets = _count_descriptors(pids[:_MAX_PROCESSES])
    yield from _known(
        {
            "file_descriptors": descriptors,
            "processes": len(pids),
            "sockets": sockets,
            "threads": stats.pids,
            "threads_max": source.number("pids", "pids.max") or 0,
        }
    )
    limit = _OPEN_FILES.search(_content(f"/proc/{source.pid}/limits") or b"")
    if limit and limit[1] != b"unlimited":
        yield Value("ulimits_soft", ("max_open_files",), int(limit[1]))


def _processes(place: str) -> list[int]:
    """Pids in a cgroup and below it."""
    directories = [directory for directory, _, _ in itertools.islice(os.walk(place), _MAX_CGROUPS)] if place else []
    return [int(word) for each in directories for word in (_content(f"{each}/cgroup.procs") or b"").split()]


def _count_descriptors(pids: Sequence[int]) -> tuple[int, int]:
    """Open descriptors of processes, and the sockets among them."""
    descriptors = sockets = 0
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:  # it may end meanwhile
            for entry in entries:
                descriptors += 1
                if descriptors > _MAX_DESCRIPTORS:
                    return descriptors, sockets
                with contextlib.suppress(OSError):
                    sockets += os.readlink(entry.path).startswith("socket:")
    return descriptors, sockets


def _content(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # gone, or not built in
        return None
    try:
        return os.read(fd, _MAX_BYTES)
    except OSError:  # it went while we read
        return None
    finally:
        os.close(fd)


_READERS: Final[Mapping[str, Callable[[MetricSource, CgroupStats], Iterator[Value]]]] = {
    "cpu": _cpu,
    "memory": _memory,
    "oom": _oom,
    "diskIO": _disk_io,
    "hugetlb": _hugetlb,
    "pressure": _pressure,
    "process": _process,
}
