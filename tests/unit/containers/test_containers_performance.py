"""Annotations of performance profiles: what is done, and what is told."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from criollo.containers.context import Containers
from criollo.containers.performance import CPU_QUOTA, NOT_DONE, lift_quota, not_done_of, tuned
from criollo.containers.shape import Asked, Shape
from criollo.linux.cgroup import Hierarchies, SliceLimits
from criollo.model.container import ContainerConfig, ImageSpec
from criollo.model.pod import Pod, PodConfig, Resources

GUARANTEED = "/kubepods/pod1"


def tune(pod: dict[str, str], *, allowed: tuple[str, ...] = (CPU_QUOTA,), parent: str = GUARANTEED, **resources: int) -> Shape:
    config = ContainerConfig(name="main", image=ImageSpec(image="i"))
    asked = Asked(config, PodConfig(name="p", uid="u", namespace="n", annotations=pod), allowed, "crun")
    return tuned(Shape(Resources(**cast(Any, resources))), asked, cgroup_parent=parent)


@pytest.mark.parametrize("key", [CPU_QUOTA, f"{CPU_QUOTA}/main"])
@pytest.mark.parametrize("value", ["disable", "true"])
def test_whole_cpus_of_a_guaranteed_pod_are_freed_of_their_quota(key: str, value: str) -> None:
    found = tune({key: value}, cpu_shares=2048, cpu_quota_us=200_000)
    assert (found.resources.cpu_quota_us, found.no_cpu_quota, found.notes) == (-1, True, ())


@pytest.mark.parametrize(
    ("shares", "parent"), [(512, GUARANTEED), (0, GUARANTEED), (1024, "/kubepods/burstable/pod1"), (1024, "besteffort.slice")]
)
def test_who_shares_cpus_keeps_the_quota_and_is_told(shares: int, parent: str) -> None:
    found = tune({CPU_QUOTA: "disable"}, cpu_shares=shares, cpu_quota_us=5, parent=parent)
    assert (found.resources.cpu_quota_us, found.no_cpu_quota) == (5, False)
    assert CPU_QUOTA in found.notes[0]


def test_a_wish_of_another_container_or_without_leave_counts_for_nothing() -> None:
    for pod, allowed in (
        ({f"{CPU_QUOTA}/other": "disable"}, (CPU_QUOTA,)),
        ({CPU_QUOTA: "enable"}, (CPU_QUOTA,)),
        ({CPU_QUOTA: "disable"}, ("x",)),
    ):
        assert tune(pod, allowed=allowed, cpu_shares=1024, cpu_quota_us=5) == Shape(Resources(cpu_shares=1024, cpu_quota_us=5))


@pytest.mark.parametrize("name", NOT_DONE)
def test_what_is_not_done_is_told(name: str) -> None:
    assert name in tune({name: "disable"}, allowed=(name,)).notes[0]
    assert tune({name: "disable"}, allowed=("x",)).notes == ()
    assert not_done_of((name, "umask.crio.io")) == [name]


def test_former_names_are_known() -> None:
    assert not_done_of(("io.kubernetes.cri-o.PlatformRuntimePath",)) == ["platform-runtime-path.crio.io"]


class Units:
    def __init__(self) -> None:
        self.told: list[tuple[str, SliceLimits]] = []

    async def set_limits(self, name: str, limits: SliceLimits) -> None:
        self.told.append((name, limits))


def lift(hierarchies: Hierarchies, parent: str) -> Units:
    units = Units()
    containers = cast(Containers, SimpleNamespace(hierarchies=hierarchies, units=units))
    asyncio.run(lift_quota(containers, cast(Pod, SimpleNamespace(id="p", cgroup_parent=parent))))
    return units


def test_the_pods_cgroup_is_freed_too(tmp_path: Path) -> None:
    for place in ("pod", "a.slice"):
        (tmp_path / place).mkdir()
    one, two = tmp_path / "pod/cpu.cfs_quota_us", tmp_path / "a.slice/cpu.max"
    one.write_text("100")
    two.write_text("100 100000")
    assert lift(Hierarchies({"cpu": tmp_path}, None), "/pod").told == []
    assert one.read_text() == "-1"
    assert lift(Hierarchies({}, tmp_path), "a.slice").told == [("a.slice", SliceLimits(cpu_quota_us=-1))]
    assert two.read_text() == "max"
