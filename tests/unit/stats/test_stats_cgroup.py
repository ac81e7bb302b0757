"""Counters of both cgroup versions, read from plain directories."""

from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from criollo.linux.cgroup import Hierarchies
from criollo.stats import cgroup
from criollo.stats.cgroup import CgroupStats, Memory, Pressure, Stalls, Swap
from criollo.stats.collect import Collector, Sample, make_sample, nano_cores

PSI = b"some avg10=41.97 avg60=10.24 avg300=2.54 total=14419525\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


def _write(place: Path, files: Mapping[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_text(content)


def test_version_2(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 2500\nuser_usec 2000\n",
        "memory.current": "1000\n",
        "memory.max": "4000\n",
        "memory.stat": "anon 300\nfile 600\ninactive_file 400\npgfault 7\npgmajfault 1\n",
        "memory.swap.current": "50\n",
        "memory.swap.max": "max\n",
        "pids.current": "3\n",
        "cpu.pressure": PSI.decode(),
    }
    _write(tmp_path / "pod/c1", files)
    stalls = Stalls(Pressure(41.97, 10.24, 2.54, 14419525), Pressure(0.0, 0.0, 0.0, 0))
    wanted = CgroupStats(2_500_000, Memory(1000, 600, 300, 4000, 7, 1), Swap(50, None), 3, stalls, None, None)
    assert cgroup.read(Hierarchies({}, tmp_path), "/pod/c1") == wanted


def test_version_1(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("cpuacct", "memory", "pids")}
    _write(roots["cpuacct"] / "c1", {"cpuacct.usage": "2500000\n"})
    memory = {
        "memory.usage_in_bytes": "1000\n",
        "memory.limit_in_bytes": "4000\n",
        "memory.memsw.limit_in_bytes": "5000\n",
        "memory.stat": "rss 1\ninactive_file 1\ntotal_rss 300\ntotal_inactive_file 400\ntotal_swap 50\n"
        "total_pgfault 7\ntotal_pgmajfault 1\n",
    }
    _write(roots["memory"] / "c1", memory)
    _write(roots["pids"] / "c1", {"pids.current": "3\n"})
    wanted = CgroupStats(2_500_000, Memory(1000, 600, 300, 4000, 7, 1), Swap(50, 1000), 3, None, None, None)
    assert cgroup.read(Hierarchies(roots, None), "/c1") == wanted


def test_no_limit_of_version_1_is_none(tmp_path: Path) -> None:
    files = {"memory.usage_in_bytes": "1000", "memory.limit_in_bytes": "9223372036854771712", "memory.stat": ""}
    _write(tmp_path / "c1", files)
    stats = cgroup.read(Hierarchies({"memory": tmp_path}, None), "/c1")
    assert stats is not None
    assert stats.memory is not None
    assert stats.memory.limit is None


def test_vanished_cgroup_is_none(tmp_path: Path) -> None:
    assert cgroup.read(Hierarchies({}, tmp_path), "/gone") is None
    assert cgroup.read(Hierarchies({"memory": tmp_path}, None), "/gone") is None
    assert Collector(Hierarchies({}, tmp_path)).collect({"x": "/gone"}) == {}


@given(st.binary(max_size=300))
def test_any_content_is_parsed(content: bytes) -> None:
    cgroup.parse_number(content)
    cgroup.parse_keyed(content)
    cgroup.parse_pressure(content)


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
        _write(tmp_path / "c1", {"cpu.stat": f"usage_usec {used_us}\n"})
        rates.append(collector.collect({"x": "/c1"})["x"].nano_cores)
    assert rates == [None, None, 500_000_000]
