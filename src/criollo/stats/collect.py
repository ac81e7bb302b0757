"""Samples of pods and containers: the counters at one moment, and the rate since the moment before.

A rate needs two readings, so the collector keeps the last one of every target it was asked for, until it is told to forget it.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from criollo.linux.cgroup import Hierarchies
from criollo.stats.cgroup import CgroupStats, Stalls
from criollo.stats.opened import FILES, OpenedCgroup, read_once
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_MOST: Final = 500 * FILES
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
    """Takes samples of cgroups, remembers the last of each, and keeps their files open within `budget` descriptors.

    Safe to use by several threads, which then wait for each other; `forget` never waits.
    """

    def __init__(self, hierarchies: Hierarchies, *, clock: Callable[[], int] = time.time_ns, budget: int | None = None) -> None:
        self._hierarchies, self._clock = hierarchies, clock
        self._slots = (_budget() if budget is None else budget) // FILES
        self._last: dict[str, Sample] = {}
        self._shown: dict[str, Sample] = {}
        self._opened: dict[str, OpenedCgroup] = {}
        self._forgotten: deque[str] = deque()
        self._lock = threading.Lock()
        self.lasts_ns = 0  # a sample that is younger is given again: for who collects in the background

    def collect(self, targets: Mapping[str, str], *, anew: bool = False) -> dict[str, Sample]:
        """One sample per target (name → cgroup path) that still exists; blocking, about 0.05 ms each.

        Samples that `lasts_ns` allows are given again unless `anew`.
        """
        with self._lock:
            self._drop_forgotten()
            samples = {name: self._sample(name, path, anew=anew) for name, path in targets.items()}
            found = {name: sample for name, sample in samples.items() if sample is not None}
        self._tidy()
        return found

    def forget(self, name: str) -> None:
        """Drop what is remembered of a target that is no more."""
        self._forgotten.append(name)
        self._tidy()

    def close(self) -> None:
        """Let go of all files; after the last call."""
        for name in [*self._opened, *self._last]:
            self.forget(name)

    def _tidy(self) -> None:
        """Drop what was forgotten, unless a thread collects: that one does it when it is done."""
        while self._forgotten and self._lock.acquire(blocking=False):
            try:
                self._drop_forgotten()
            finally:
                self._lock.release()

    def _drop_forgotten(self) -> None:
        while self._forgotten:
            name = self._forgotten.popleft()
            self._last.pop(name, None)
            self._shown.pop(name, None)
            if opened := self._opened.pop(name, None):
                opened.close()

    def _sample(self, name: str, path: str, *, anew: bool) -> Sample | None:
        shown, now = self._shown.get(name), self._clock()
        if shown is not None and not anew and 0 <= now - shown.at_ns < self.lasts_ns:
            return shown
        stats = self._read(name, path)
        if stats is None:
            return None
        previous = self._last.get(name)
        sample = make_sample(stats, now, previous)
        if previous is None or not 0 <= sample.at_ns - previous.at_ns < _MIN_SPAN_NS:  # below 0: the clock was set back
            self._last[name] = sample
        if self.lasts_ns:
            self._shown[name] = sample
        return sample

    def _read(self, name: str, path: str) -> CgroupStats | None:
        opened = self._opened.get(name)
        try:
            if opened is not None:
                if stats := opened.read():
                    return stats
                self._opened.pop(name).close()  # removed; perhaps it was made again
            if len(self._opened) >= self._slots:
                return read_once(self._hierarchies, path)
            opened = OpenedCgroup(self._hierarchies, path)
        except OSError as error:
            log.warning("statistics of a cgroup left out", cgroup=path, cause=error)
            return None
        if stats := opened.read():
            self._opened[name] = opened
        else:
            opened.close()
        return stats


def _budget() -> int:
    """A quarter of the files that this process may open, and no more than 500 cgroups need."""
    allowed = os.sysconf("SC_OPEN_MAX")  # the limit as it is now
    return min(allowed // 4 if allowed >= 0 else _MOST, _MOST)


def make_sample(stats: CgroupStats, at_ns: int, previous: Sample | None) -> Sample:
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
