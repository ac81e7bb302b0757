"""Samples of pods and containers: the counters at one moment, and the rate since the moment before.

A rate needs two readings, so the collector keeps the last one of every target it was asked for, until it is told to forget it.
It is called from one thread at a time (a pool thread; reading is blocking).
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from criollo.linux.cgroup import Hierarchies
from criollo.stats import cgroup
from criollo.stats.cgroup import Stalls

_MIN_SPAN_NS: Final = 100_000_000  # a rate over less than 0.1 s is noise: the last known one is repeated


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The use of one target. Bytes, nanoseconds; None where the kernel does not tell (no limit: nothing available).

    `nano_cores` is the mean since the sample before: 1e9 is one core busy. Source: CRI v1, ContainerStats.
    """

    at_ns: int
    cpu_ns: int | None = None
    nano_cores: int | None = None
    memory_usage_bytes: int | None = None
    memory_working_set_bytes: int | None = None
    memory_available_bytes: int | None = None
    memory_rss_bytes: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap_usage_bytes: int | None = None
    swap_available_bytes: int | None = None
    pids: int | None = None
    cpu_stalls: Stalls | None = None
    memory_stalls: Stalls | None = None
    io_stalls: Stalls | None = None


class Collector:
    """Takes samples of cgroups and remembers the last of each."""

    def __init__(self, hierarchies: Hierarchies, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._hierarchies, self._clock = hierarchies, clock
        self._last: dict[str, Sample] = {}

    def collect(self, targets: Mapping[str, str]) -> dict[str, Sample]:
        """One sample per target (name → cgroup path) that still exists; blocking, about 0.1 ms each."""
        found = {}
        for name, path in targets.items():
            stats = cgroup.read(self._hierarchies, path)
            if stats is None:
                continue
            previous = self._last.get(name)
            sample = found[name] = make_sample(stats, self._clock(), previous)
            if previous is None or sample.at_ns - previous.at_ns >= _MIN_SPAN_NS:
                self._last[name] = sample
        return found

    def forget(self, name: str) -> None:
        """Drop what is remembered of a target that is no more."""
        self._last.pop(name, None)


def make_sample(stats: cgroup.CgroupStats, at_ns: int, previous: Sample | None) -> Sample:
    """One reading as a sample, with the rate since `previous`."""
    memory, swap = stats.memory, stats.swap
    return Sample(
        at_ns=at_ns,
        cpu_ns=stats.cpu_ns,
        nano_cores=nano_cores(stats.cpu_ns, at_ns, previous),
        memory_usage_bytes=memory and memory.usage,
        memory_working_set_bytes=memory and memory.working_set,
        memory_available_bytes=_left(memory.limit, memory.working_set) if memory else None,
        memory_rss_bytes=memory and memory.rss,
        page_faults=memory and memory.page_faults,
        major_page_faults=memory and memory.major_page_faults,
        swap_usage_bytes=swap and swap.usage,
        swap_available_bytes=_left(swap.limit, swap.usage) if swap else None,
        pids=stats.pids,
        cpu_stalls=stats.cpu_stalls,
        memory_stalls=stats.memory_stalls,
        io_stalls=stats.io_stalls,
    )


def nano_cores(cpu_ns: int | None, at_ns: int, previous: Sample | None) -> int | None:
    """The cpu rate since the previous sample; None without one, never negative (a counter may start anew)."""
    if cpu_ns is None or previous is None or previous.cpu_ns is None:
        return None
    span_ns = at_ns - previous.at_ns
    if span_ns < _MIN_SPAN_NS:
        return previous.nano_cores
    return max(0, cpu_ns - previous.cpu_ns) * 1_000_000_000 // span_ns


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
