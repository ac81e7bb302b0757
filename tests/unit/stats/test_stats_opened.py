"""The open files of one cgroup."""

from pathlib import Path

from support import leaks

from criollo.linux.cgroup import Hierarchies
from criollo.stats.opened import SUBGROUP, OpenedCgroup, directory_v2, read_once


def write(place: Path, used: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "cpu.stat").write_text(f"usage_usec {used}\n")
    (place / "memory.current").write_text(f"{used}\n")


def test_every_reading_is_of_its_moment(tmp_path: Path) -> None:
    write(tmp_path / "c1", 1)
    found = OpenedCgroup(Hierarchies({}, tmp_path), "/c1")
    first = found.read()
    assert found.read() is first  # nothing has changed: nothing is parsed again
    write(tmp_path / "c1", 2)
    second = found.read()
    assert second is not None
    assert second.cpu_ns == 2000
    found.close()


def test_a_closed_one_reads_nothing_and_may_be_closed_again(tmp_path: Path) -> None:
    before = leaks.descriptors()
    write(tmp_path / "c1", 1)
    found = OpenedCgroup(Hierarchies({}, tmp_path), "/c1")
    found.close()
    found.close()
    assert found.read() is None
    assert leaks.new_descriptors(before) == []


def test_counters_are_those_of_the_subgroup_that_crun_makes_in_a_scope(tmp_path: Path) -> None:
    scope = "/pod.slice/crio-x.scope"
    write(tmp_path / scope[1:], 9)
    write(tmp_path / scope[1:] / SUBGROUP, 5)
    stats = read_once(Hierarchies({}, tmp_path), scope)
    assert stats is not None
    assert stats.memory is not None
    assert stats.memory.usage == 5


def test_subgroup_without_memory_and_one_below_a_plain_cgroup_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.scope" / SUBGROUP).mkdir(parents=True)
    write(tmp_path / "pod" / SUBGROUP, 1)
    assert directory_v2(str(tmp_path), "/a.scope") == f"{tmp_path}/a.scope"
    assert directory_v2(str(tmp_path), "/pod") == f"{tmp_path}/pod"
