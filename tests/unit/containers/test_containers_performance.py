"""Annotations of performance profiles: what is done, and what is told."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.containers import performance
from criollo.containers.context import Containers
from criollo.containers.performance import CPU_QUOTA, NOT_DONE, lift_quota, not_done_of, tuned
from criollo.containers.shape import Asked, Shape
from criollo.errors import Invalid
from criollo.linux.cgroup import Hierarchies, SliceLimits
from criollo.model.container import ContainerConfig, ImageSpec, Tuning
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


ALL = ("cpu-load-balancing.crio.io", "irq-load-balancing.crio.io", "cpu-c-states.crio.io", "cpu-freq-governor.crio.io")


def tuning(pod: dict[str, str], *, shared: str = "", parent: str = GUARANTEED, **resources: Any) -> Shape:
    config = ContainerConfig(name="main", image=ImageSpec(image="i"))
    asked = Asked(config, PodConfig(name="p", uid="u", namespace="n", annotations=pod), ALL, "crun")
    resources = {"cpu_shares": 1024, "cpuset_cpus": "1-3", **resources}
    return tuned(Shape(Resources(**resources), shared_cpus=shared), asked, cgroup_parent=parent)


def test_each_annotation_becomes_a_part_of_the_tuning() -> None:
    found = tuning(
        {
            "cpu-load-balancing.crio.io": "disable",
            "irq-load-balancing.crio.io/main": "disable",
            "cpu-c-states.crio.io": "max_latency:10",
            "cpu-freq-governor.crio.io": "performance",
        }
    )
    assert found.tuning == Tuning(cpus="1-3", isolated=True, quiet="1-3", latency="10", governor="performance")
    assert found.notes == ()


def test_shared_cpus_stay_as_they_are() -> None:
    found = tuning({"cpu-c-states.crio.io": "disable"}, shared="3,7", cpuset_cpus="1-3,7").tuning
    assert found == Tuning(cpus="1-2", latency="n/a")


@pytest.mark.parametrize("key", ALL[:2])
@pytest.mark.parametrize("value", ["enable", "false", ""])
def test_other_values_want_nothing(key: str, value: str) -> None:
    assert tuning({key: value}, cpuset_cpus="").tuning is None


@pytest.mark.parametrize("key", ALL)
@pytest.mark.parametrize("shape", [{"cpu_shares": 512}, {"parent": "/kubepods/burstable/p"}])
def test_who_shares_cpus_leaves_the_node_alone_and_is_told(key: str, shape: dict[str, Any]) -> None:
    found = tuning({key: "disable"}, **shape)
    assert (found.tuning, f"annotation {key} has no effect: it is for whole CPUs" in found.notes[0]) == (None, True)


@pytest.mark.parametrize("key", ALL)
def test_without_cpus_of_its_own_a_container_is_refused(key: str) -> None:
    with pytest.raises(Invalid, match=f"annotation {key}.*CPUs of its own"):
        tuning({key: "disable"}, cpuset_cpus="")


def test_housekeeping_keeps_the_first_core_and_tells_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "1").write_text("1,3,5\n")
    monkeypatch.setattr(performance, "_SIBLINGS", f"{tmp_path}/{{}}")
    found = tuning({"irq-load-balancing.crio.io": "housekeeping"})
    assert found.tuning == Tuning(cpus="1-3", quiet="2")
    assert found.env == (("OPENSHIFT_HOUSEKEEPING_CPUS", "1,3"),)
    assert tuning({"irq-load-balancing.crio.io": "housekeeping"}, cpuset_cpus="8-9").tuning == Tuning(cpus="8-9", quiet="9")


@pytest.mark.parametrize(("text", "written"), [("enable", "0"), ("disable", "n/a"), ("max_latency:25", "25")])
def test_latencies_are_what_the_kernel_takes(text: str, written: str) -> None:
    assert performance.parse_latency(text) == written


@pytest.mark.parametrize(
    "text", ["max_latency:0", "max_latency:-1", "max_latency:x", "10", "Disable", "max_latency:9999999999"]
)
def test_other_latencies_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"cpu-c-states\.crio\.io"):
        tuning({"cpu-c-states.crio.io": text})


@given(text=st.text(min_size=1))
def test_a_governor_is_a_plain_name_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert not set(performance.parse_governor(text)) & set("/ \n\0.")
