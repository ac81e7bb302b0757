"""Counters of both cgroup versions, read from plain directories."""

from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from criollo.linux.cgroup import Hierarchies
from criollo.stats import cgroup
from criollo.stats.cgroup import CgroupStats, Memory, Pressure, Stalls, Swap
from criollo.stats.opened import read_once

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
    assert read_once(Hierarchies({}, tmp_path), "/pod/c1") == wanted


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
    assert read_once(Hierarchies(roots, None), "/c1") == wanted


def test_no_limit_of_version_1_is_none(tmp_path: Path) -> None:
    files = {"memory.usage_in_bytes": "1000", "memory.limit_in_bytes": "9223372036854771712", "memory.stat": ""}
    _write(tmp_path / "c1", files)
    stats = read_once(Hierarchies({"memory": tmp_path}, None), "/c1")
    assert stats is not None
    assert stats.memory is not None
    assert stats.memory.limit is None


def test_vanished_cgroup_is_none(tmp_path: Path) -> None:
    assert read_once(Hierarchies({}, tmp_path), "/gone") is None
    assert read_once(Hierarchies({"memory": tmp_path}, None), "/gone") is None


@given(st.binary(max_size=300))
def test_any_content_is_parsed(content: bytes) -> None:
    cgroup.parse_number(content)
    cgroup.parse_keyed(content)
    cgroup.parse_pressure(content)
    cgroup.find_keyed(b"\n" + content, b"\nanon ")
    cgroup.parse_v1([content] * 6, [content] * 3)
    cgroup.parse_v2([content] * 7, [content] * 3)


@given(st.dictionaries(st.from_regex(rb"[a-z_]{1,12}", fullmatch=True), st.integers(0, 10**18)))
def test_a_key_is_found_as_parsing_all_lines_finds_it(counters: dict[bytes, int]) -> None:
    content = b"".join(b"%s %d\n" % pair for pair in counters.items())
    assert cgroup.parse_keyed(content) == counters
    for key in (*counters, b"absent"):
        assert cgroup.find_keyed(b"\n" + content, b"\n" + key + b" ") == counters.get(key, 0)


def test_pressure_of_old_kernels_has_one_line() -> None:
    assert cgroup.parse_pressure(PSI.splitlines(keepends=True)[0]) == Stalls(Pressure(41.97, 10.24, 2.54, 14419525), None)
