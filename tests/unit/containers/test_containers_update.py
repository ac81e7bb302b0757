"""What an update of resources changes, and what it leaves."""

import errno
import subprocess
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.containers import update
from criollo.containers.update import changed, lasting, merge
from criollo.errors import HostFailed, Invalid
from criollo.linux.cgroup import Hierarchies
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId
from criollo.model.pod import HugepageLimit, Resources
from criollo.specgen import cpus

STATE: Final = ContainerState.RUNNING
NUMBERS = st.integers(0, 1 << 40)
RESOURCES = st.builds(
    Resources,
    cpu_period_us=NUMBERS,
    cpu_quota_us=st.integers(-1, 1 << 40),
    cpu_shares=NUMBERS,
    memory_limit_bytes=NUMBERS,
    memory_swap_limit_bytes=NUMBERS,
    oom_score_adj=st.integers(-1000, 1000),
    cpuset_cpus=st.sampled_from(["", "0", "0-3"]),
    cpuset_mems=st.sampled_from(["", "0"]),
    hugepage_limits=st.sampled_from([(), (HugepageLimit(page_size="2MB", limit_bytes=1),)]),
    unified=st.dictionaries(st.sampled_from(["memory.high", "io.max"]), st.sampled_from(["1", "max"])),
)


def test_what_is_given_replaces_and_the_rest_stays() -> None:
    old = Resources(cpu_shares=2, memory_limit_bytes=100, cpuset_cpus="0", unified={"a": "1", "b": "2"})
    new = Resources(memory_limit_bytes=200, unified={"b": "3"})
    assert merge(old, new) == Resources(cpu_shares=2, memory_limit_bytes=200, cpuset_cpus="0", unified={"a": "1", "b": "3"})


def test_a_quota_without_limit_is_given() -> None:
    assert merge(Resources(cpu_quota_us=5000), Resources(cpu_quota_us=-1)).cpu_quota_us == -1


def container(**fields: Any) -> Container:
    config = ContainerConfig(name="c", image=ImageSpec(image="i"))
    return Container(
        id=ContainerId("c" * 64), pod_id=PodId("p"), name="c", config=config, handler="", state=STATE, created_ns=0, **fields
    )


def test_shared_cpus_stay_when_kubelet_gives_other_ones() -> None:
    shares = container(shared_cpus="0,5")
    assert lasting(shares, Resources(cpuset_cpus="1-2")).cpuset_cpus == "0-2,5"
    assert lasting(shares, Resources(cpu_shares=2)) == Resources(cpu_shares=2)
    assert lasting(container(), Resources(cpuset_cpus="1")) == Resources(cpuset_cpus="1")


@given(own=st.frozensets(st.integers(0, 40), min_size=1), shared=st.frozensets(st.integers(0, 40)))
def test_no_update_takes_a_shared_cpu_away(own: frozenset[int], shared: frozenset[int]) -> None:
    found = lasting(container(shared_cpus=cpus.written(shared)), Resources(cpuset_cpus=cpus.written(own)))
    assert cpus.parse(found.cpuset_cpus, "") == own | shared


def test_a_container_without_quota_gets_none_by_an_update() -> None:
    assert lasting(container(no_cpu_quota=True), Resources(cpu_quota_us=5, cpu_period_us=9)).cpu_quota_us == -1
    assert lasting(container(no_cpu_quota=True), Resources(cpu_shares=5)).cpu_quota_us == 0


def test_shared_cpus_are_refused_beside_what_is_no_list() -> None:
    with pytest.raises(Invalid, match="cpuset_cpus"):
        lasting(container(shared_cpus="1"), Resources(cpuset_cpus="a"))


@given(old=RESOURCES, new=RESOURCES)
def test_every_field_is_of_the_new_or_else_of_the_old(old: Resources, new: Resources) -> None:
    merged = merge(old, new)
    for name in sorted(set(Resources.__struct_fields__) - {"unified", "memory_swap_limit_bytes"}):
        assert getattr(merged, name) == (getattr(new, name) or getattr(old, name))
    assert merged.unified == {**old.unified, **new.unified}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((64, 64), (96, 0), 96),
        ((64, 64), (32, 0), 32),
        ((64, 128), (96, 0), 128),
        ((64, 128), (200, 0), 200),
        ((64, 128), (-1, 0), -1),
        ((64, -1), (96, 0), -1),
        ((64, 0), (96, 0), 0),
        ((64, 64), (96, 100), 100),
        ((64, 64), (0, 100), 100),
    ],
)
def test_the_limit_with_swap_follows_that_of_memory(old: tuple[int, int], new: tuple[int, int], expected: int) -> None:
    before, given_now = (Resources(memory_limit_bytes=one, memory_swap_limit_bytes=both) for one, both in (old, new))
    assert merge(before, given_now).memory_swap_limit_bytes == expected


def test_huge_pages_change_by_their_size() -> None:
    small, more, large = (
        HugepageLimit(page_size=size, limit_bytes=limit) for size, limit in (("2MB", 1), ("2MB", 2), ("1GB", 3))
    )
    merged = merge(Resources(hugepage_limits=(small, large)), Resources(hugepage_limits=(more,)))
    assert set(merged.hugepage_limits) == {more, large}


def test_an_update_writes_what_was_given_and_its_pair() -> None:
    merged = Resources(
        cpu_shares=2, cpu_quota_us=5, cpu_period_us=10, memory_limit_bytes=7, memory_swap_limit_bytes=9, unified={"a.b": "1"}
    )
    assert changed(merged, Resources(cpu_period_us=10)) == Resources(cpu_quota_us=5, cpu_period_us=10)
    assert changed(merged, Resources(memory_limit_bytes=7)) == Resources(memory_limit_bytes=7, memory_swap_limit_bytes=9)
    assert changed(merged, Resources(oom_score_adj=5)) == Resources(oom_score_adj=merged.oom_score_adj)


@given(RESOURCES)
def test_nothing_given_changes_nothing(old: Resources) -> None:
    assert merge(old, Resources()) == old
    assert merge(Resources(), old) == old
    assert merge(old, old) == old


class Group:
    """Stands in for the hierarchies: one cgroup with these processes."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def processes(self, path: str) -> list[int]:
        return list(self._pids)


def score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_scores_change_where_they_are_the_old_one_and_the_dead_are_passed_over() -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    with subprocess.Popen(["sleep", "100"]) as one, subprocess.Popen(["sleep", "100"]) as other:
        Path(f"/proc/{one.pid}/oom_score_adj").write_text("400")
        Path(f"/proc/{other.pid}/oom_score_adj").write_text("500")
        update._set_scores(cast(Hierarchies, Group(dead.pid, one.pid, other.pid)), "/x", update._Scores(400, 600))
        found = [score(each.pid) for each in (one, other)]
        one.kill()
        other.kill()
    assert found == [600, 500]


def test_scores_are_given_back_when_one_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, int]] = []

    def write(pid: int, value: int) -> None:
        if pid == 3:
            raise OSError(errno.EINVAL, "Invalid argument")
        written.append((pid, value))

    monkeypatch.setattr(update, "_score", lambda pid: 400)
    monkeypatch.setattr(update, "_write_score", write)
    with pytest.raises(HostFailed, match="process 3 to 600"):
        update._set_scores(cast(Hierarchies, Group(1, 2, 3, 4)), "/x", update._Scores(400, 600))
    assert written == [(1, 600), (2, 600), (1, 400), (2, 400)]
