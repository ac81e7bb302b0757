"""A pod's new size, as the files of its cgroup take it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.linux.cgroup import Hierarchies
from criollo.model.pod import Resources
from criollo.pods.update import files_of, total, weight


def test_overhead_comes_on_top_of_the_containers_limits() -> None:
    found = total(
        Resources(cpu_quota_us=50_000, cpu_period_us=100_000, cpu_shares=512, memory_limit_bytes=100, cpuset_cpus="0"),
        Resources(cpu_quota_us=5_000, cpu_period_us=50_000, cpu_shares=102, memory_limit_bytes=20),
    )
    assert found == Resources(
        cpu_quota_us=60_000, cpu_period_us=100_000, cpu_shares=614, memory_limit_bytes=120, cpuset_cpus="0"
    )


def test_without_a_limit_of_the_containers_the_pod_has_none() -> None:
    found = total(Resources(cpu_shares=2), Resources(memory_limit_bytes=20, cpu_quota_us=5))
    assert (found.memory_limit_bytes, found.cpu_quota_us, found.cpu_shares) == (-1, -1, 2)
    assert total(None, None).memory_limit_bytes == -1


def test_version_1_has_files_by_controller() -> None:
    hierarchies = Hierarchies({"cpu": Path("/c"), "memory": Path("/m")}, Path("/u"))
    wanted = Resources(cpu_quota_us=-1, cpu_period_us=100, cpu_shares=5, memory_limit_bytes=7, cpuset_cpus="0")
    assert files_of(hierarchies, "/pod", wanted) == {
        Path("/c/pod/cpu.cfs_period_us"): "100",
        Path("/c/pod/cpu.cfs_quota_us"): "-1",
        Path("/c/pod/cpu.shares"): "5",
        Path("/m/pod/memory.limit_in_bytes"): "7",
    }


@pytest.mark.parametrize(("quota", "memory", "texts"), [(-1, -1, ("max 100", "max")), (50, 9, ("50 100", "9"))])
def test_version_2_has_all_in_one_place(quota: int, memory: int, texts: tuple[str, str]) -> None:
    wanted = Resources(
        cpu_quota_us=quota, cpu_period_us=100, cpu_shares=1024, memory_limit_bytes=memory, unified={"memory.high": "3"}
    )
    assert files_of(Hierarchies({}, Path("/u")), "/pod", wanted) == {
        Path("/u/pod/cpu.max"): texts[0],
        Path("/u/pod/memory.max"): texts[1],
        Path("/u/pod/cpu.weight"): "39",
        Path("/u/pod/memory.high"): "3",
    }


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_more_shares_are_never_less_weight(one: int, other: int) -> None:
    assert 1 <= weight(min(one, other)) <= weight(max(one, other)) <= 10_000
