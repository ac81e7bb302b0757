"""Samples, their rates, and the files that stay open for them."""

import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import leaks

from criollo.linux.cgroup import Hierarchies
from criollo.stats import opened
from criollo.stats.cgroup import CgroupStats, Memory, Swap
from criollo.stats.collect import Collector, Sample, make_sample, nano_cores
from criollo.stats.opened import FILES

SECOND = 1_000_000_000


def write(place: Path, files: Mapping[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_text(content)


def use(place: Path, used_us: int) -> None:
    write(place, {"cpu.stat": f"usage_usec {used_us}\n"})


def opened_below(place: Path) -> int:
    return sum(f" {place}/" in each for each in leaks.descriptors())


def test_rate_is_the_mean_since_the_sample_before() -> None:
    before = Sample(at_ns=0, cpu_ns=1_000_000_000, nano_cores=5)
    assert nano_cores(1_500_000_000, 1_000_000_000, before) == 500_000_000
    assert nano_cores(1_500_000_000, 1_000, before) == 5
    assert nano_cores(0, 1_000_000_000, before) == 0
    assert nano_cores(1, 1, None) is None


def test_available_is_what_the_limit_leaves() -> None:
    stats = CgroupStats(1, Memory(1000, 600, 300, 500, 7, 1), Swap(50, None), 3, None, None, None)
    sample = make_sample(stats, 9, None)
    assert (sample.memory_available_bytes, sample.swap_available_bytes) == (0, None)


def test_quick_repeats_do_not_starve_the_rate(tmp_path: Path) -> None:
    moments = iter([0, 60_000_000, 120_000_000])
    collector = Collector(Hierarchies({}, tmp_path), clock=lambda: next(moments))
    rates = []
    for used_us in (0, 30_000, 60_000):
        write(tmp_path / "c1", {"cpu.stat": f"usage_usec {used_us}\n"})
        rates.append(collector.collect({"x": "/c1"})["x"].nano_cores)
    assert rates == [None, None, 500_000_000]


def test_files_stay_open_until_the_target_is_forgotten(tmp_path: Path) -> None:
    before = opened_below(tmp_path)
    collector = Collector(Hierarchies({}, tmp_path))
    use(tmp_path / "c1", 1)
    collector.collect({"x": "/c1"})
    held = opened_below(tmp_path)
    use(tmp_path / "c1", 2)
    assert collector.collect({"x": "/c1"})["x"].cpu_ns == 2000
    assert opened_below(tmp_path) == held > before
    collector.forget("x")
    assert opened_below(tmp_path) == before


def test_no_more_files_stay_open_than_the_budget_has(tmp_path: Path) -> None:
    collector = Collector(Hierarchies({}, tmp_path), budget=2 * FILES)
    targets = {str(number): f"/c{number}" for number in range(5)}
    for path in targets.values():
        use(tmp_path / path[1:], 1)
    before = opened_below(tmp_path)
    assert set(collector.collect(targets)) == set(targets)
    assert opened_below(tmp_path) == before + 2  # one file of each is there
    collector.close()
    assert opened_below(tmp_path) == before


def test_a_cgroup_that_is_gone_is_left_out_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(Hierarchies({}, tmp_path))
    use(tmp_path / "c1", 1)
    use(tmp_path / "c2", 1)
    targets = {"x": "/c1", "y": "/c2"}
    assert set(collector.collect(targets)) == set(targets)
    removed = set(collector._opened["x"]._fds)
    read = opened._read
    monkeypatch.setattr(opened, "_read", lambda fd: None if fd in removed else read(fd))  # as ENODEV
    (tmp_path / "c1/cpu.stat").unlink()
    assert set(collector.collect(targets)) == {"y"}
    monkeypatch.undo()
    use(tmp_path / "c1", 5)
    assert collector.collect(targets)["x"].cpu_ns == 5000
    assert Collector(Hierarchies({}, tmp_path)).collect({"x": "/gone"}) == {}
    collector.close()


def test_too_many_open_files_cost_a_target_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(Hierarchies({}, tmp_path))
    for name in ("c1", "c2"):
        use(tmp_path / name, 1)
    real = os.open

    def refuse(path: str, flags: int) -> int:
        if "/c1/memory.stat" in path:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, flags)

    before = opened_below(tmp_path)
    monkeypatch.setattr(opened.os, "open", refuse)
    assert set(collector.collect({"x": "/c1", "y": "/c2"})) == {"y"}
    monkeypatch.undo()
    collector.close()
    assert opened_below(tmp_path) == before


def test_forgetting_does_not_wait_for_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(Hierarchies({}, tmp_path))
    use(tmp_path / "c1", 1)
    collector.collect({"x": "/c1"})
    reading, release = threading.Event(), threading.Event()
    read = opened._read

    def slow(fd: int) -> bytes | None:
        reading.set()
        release.wait(60)
        return read(fd)

    before = opened_below(tmp_path)
    monkeypatch.setattr(opened, "_read", slow)
    thread = threading.Thread(target=collector.collect, args=({"x": "/c1"},))
    thread.start()
    reading.wait(60)
    collector.forget("x")
    assert opened_below(tmp_path) == before  # still read from
    release.set()
    thread.join()
    assert opened_below(tmp_path) == before - 1


def test_a_young_sample_is_told_again_where_that_is_wanted(tmp_path: Path) -> None:
    moments = iter([0, SECOND, SECOND, 3 * SECOND, 3 * SECOND])
    collector = Collector(Hierarchies({}, tmp_path), clock=lambda: next(moments))
    collector.lasts_ns = 2 * SECOND
    used = []
    for used_us, anew in ((1, False), (2, False), (3, True), (4, False)):
        use(tmp_path / "c1", used_us)
        used.append(collector.collect({"x": "/c1"}, anew=anew)["x"].cpu_ns)
    assert used == [1000, 1000, 3000, 4000]
    collector.close()


def test_rate_goes_on_after_the_clock_was_set_back(tmp_path: Path) -> None:
    moments = iter([1000 * SECOND, 1001 * SECOND, 10 * SECOND, 11 * SECOND])
    collector = Collector(Hierarchies({}, tmp_path), clock=lambda: next(moments))
    rates = []
    for used_us in (0, 500_000, 600_000, 850_000):
        use(tmp_path / "c1", used_us)
        rates.append(collector.collect({"x": "/c1"})["x"].nano_cores)
    collector.close()
    assert rates == [None, 500_000_000, 500_000_000, 250_000_000]
