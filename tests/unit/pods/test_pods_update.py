"""A pod's new size, as the files of its cgroup take it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import HostFailed
from criollo.linux.cgroup import Hierarchies, SliceLimits
from criollo.model.pod import HugepageLimit, Pod, Resources
from criollo.pods import update
from criollo.pods.context import Pods
from criollo.pods.update import files_of, released, total, weight


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


def pages(**sizes: int) -> tuple[HugepageLimit, ...]:
    return tuple(HugepageLimit(page_size=f"{name}B", limit_bytes=limit) for name, limit in sizes.items())


@pytest.mark.parametrize(
    ("one", "more", "both"),
    [
        ((100, 0), (20, 0), 0),
        ((100, 150), (20, 0), 170),
        ((100, 150), (20, 30), 180),
        ((100, -1), (20, 0), -1),
        ((0, 150), (20, 0), -1),
    ],
)
def test_swap_of_a_pod_is_that_of_its_containers_and_the_overhead(
    one: tuple[int, int], more: tuple[int, int], both: int
) -> None:
    sizes = (Resources(memory_limit_bytes=memory, memory_swap_limit_bytes=swap) for memory, swap in (one, more))
    assert total(*sizes).memory_swap_limit_bytes == both


def test_huge_pages_of_a_pod_are_those_of_its_containers_and_the_overhead() -> None:
    one, more = pages(**{"2M": 4, "1G": 8}), pages(**{"2M": 1, "64K": 3})
    assert total(Resources(hugepage_limits=one), Resources(hugepage_limits=more)).hugepage_limits == pages(**{"2M": 5, "1G": 8})


def test_a_limit_that_is_not_named_any_more_is_lifted() -> None:
    old = Resources(memory_swap_limit_bytes=9, hugepage_limits=pages(**{"2M": 4, "1G": 8}))
    new = released(old, Resources(hugepage_limits=pages(**{"1G": 2})))
    assert (new.memory_swap_limit_bytes, new.hugepage_limits) == (-1, pages(**{"1G": 2, "2M": -1}))
    assert released(Resources(), Resources()) == Resources()


def test_swap_and_huge_pages_have_their_files() -> None:
    wanted = Resources(cpu_period_us=1, memory_limit_bytes=7, memory_swap_limit_bytes=9, hugepage_limits=pages(**{"2M": -1}))
    v1 = files_of(Hierarchies({"hugetlb": Path("/h"), "memory": Path("/m")}, None), "/pod", wanted)
    assert v1[Path("/m/pod/memory.memsw.limit_in_bytes")] == "9"
    assert v1[Path("/h/pod/hugetlb.2MB.limit_in_bytes")] == "-1"
    v2 = files_of(Hierarchies({}, Path("/u")), "/pod", wanted)
    assert (v2[Path("/u/pod/memory.swap.max")], v2[Path("/u/pod/hugetlb.2MB.max")]) == ("2", "max")


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_more_shares_are_never_less_weight(one: int, other: int) -> None:
    assert 1 <= weight(min(one, other)) <= weight(max(one, other)) <= 10_000


class Units:
    """systemd: what it was told of slices."""

    def __init__(self) -> None:
        self.told: list[SliceLimits] = []

    async def set_limits(self, name: str, limits: SliceLimits) -> None:
        self.told.append(limits)


def test_a_first_update_that_fails_leaves_no_limit_with_systemd_and_none_in_the_files(tmp_path: Path) -> None:
    slice_ = tmp_path / "a.slice"
    (slice_ / "memory.max").mkdir(parents=True)  # no such file to write to
    for name, value in (("cpu.max", "max 100000"), ("cpu.weight", "100"), ("memory.swap.max", "max")):
        (slice_ / name).write_text(value)
    units = Units()
    host = SimpleNamespace(has_swap_accounting=True, hugepage_sizes=())
    containers = SimpleNamespace(units=units, host=host)
    state = SimpleNamespace(containers=SimpleNamespace(of_pod=lambda _: []))
    pods = cast(Pods, SimpleNamespace(containers=containers, hierarchies=Hierarchies({}, tmp_path), state=state))
    pod = cast(Pod, SimpleNamespace(id="p", cgroup_parent="a.slice"))
    wanted = total(Resources(cpu_shares=512, memory_limit_bytes=100, memory_swap_limit_bytes=150), None)
    with pytest.raises(HostFailed, match=r"a\.slice"):
        asyncio.run(update._apply(pods, pod, total(None, None), wanted))
    assert units.told == [
        SliceLimits(100, -1, 100_000, weight(512), 50),
        SliceLimits(-1, -1, 100_000, -1, -1),
    ]
    held = {name: (slice_ / name).read_text() for name in ("cpu.max", "cpu.weight", "memory.swap.max")}
    assert held == {"cpu.max": "max 100000", "cpu.weight": "100", "memory.swap.max": "max"}
