"""A pod's cgroup parent: whose it is, and who removes it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from criollo.aio.jobs import Job
from criollo.errors import HostFailed, Invalid
from criollo.linux.cgroup import Driver, Hierarchies, expand_slice
from criollo.model.ids import PodId, new_id
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.pods import cgroups, infra, namespaces, run
from criollo.pods.context import Pods
from criollo.state.records import State


class Units:
    """systemd as far as slices go: it makes the slices on the way, and takes away the one that is named."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self.dropped: list[str] = []
        self.unused: list[Path] = []  # hierarchies that systemd does not use, as version 1 has them

    async def start_slice(self, name: str) -> None:
        for top in self._node.tops:
            (top / expand_slice(name).lstrip("/")).mkdir(parents=True, exist_ok=True)

    async def drop(self, name: str) -> None:
        self.dropped.append(name)
        for top in self._node.tops:
            if top not in self.unused:
                (top / expand_slice(name).lstrip("/")).rmdir()

    def close(self) -> None:
        pass


class Node:
    """A context with real rows and hierarchies that are plain directories."""

    def __init__(self, directory: Path, driver: Driver) -> None:
        self.tops = [directory / "cpu", directory / "memory"]
        for top in self.tops:
            top.mkdir()
        self.state = State(directory / "state.db")
        hierarchies = Hierarchies({"cpu": self.tops[0], "memory": self.tops[1]}, None)
        self.units = Units(self)
        containers = SimpleNamespace(cgroup_driver=driver, units=self.units, hierarchies=hierarchies)
        self.pods = cast(Pods, SimpleNamespace(state=self.state, hierarchies=hierarchies, containers=containers))

    def pod(self, parent: str = "") -> Pod:
        pod_id = PodId(new_id())
        config = PodConfig(name="p", uid="u", namespace="n", cgroup_parent=parent)
        path = cgroups.parent_of(self.pods, parent, pod_id)
        made = Pod(id=pod_id, name=pod_id, config=config, handler="", state=PodState.CREATING, created_ns=1, cgroup_parent=path)
        return self.state.pods.insert(made)

    def ensure(self, pod: Pod) -> Pod:
        asyncio.run(cgroups.ensure(self.pods, pod))
        return self.state.pod(pod.id)

    def remove(self, pod: Pod) -> None:
        asyncio.run(cgroups.remove(self.pods, self.state.pod(pod.id)))
        self.state.pods.delete(pod.id)

    def has(self, path: str) -> list[bool]:
        return [(top / path.lstrip("/")).is_dir() for top in self.tops]


@pytest.fixture
def node(tmp_path: Path) -> Any:
    made = Node(tmp_path, Driver.CGROUPFS)
    yield made
    made.state.close()


def test_a_pod_without_a_parent_gets_one_of_its_own(node: Node) -> None:
    pod = node.ensure(node.pod())
    assert pod.cgroup_parent == f"/crio/pod{pod.id}"
    assert pod.cgroup_made
    assert node.has(pod.cgroup_parent) == [True, True]
    node.remove(pod)
    assert node.has(pod.cgroup_parent) == [False, False]


def test_a_clients_parent_stays_the_clients(node: Node) -> None:
    for top in node.tops:
        (top / "kubepods").mkdir()
    pod = node.ensure(node.pod("/kubepods"))
    assert not pod.cgroup_made
    node.remove(pod)
    assert node.has("/kubepods") == [True, True]


def test_a_parent_we_made_goes_with_its_last_pod(node: Node) -> None:
    one, two = (node.ensure(node.pod("/shared")) for _ in range(2))
    assert (one.cgroup_made, two.cgroup_made) == (True, False)
    node.remove(one)
    assert node.has("/shared") == [True, True]
    assert node.state.pod(two.id).cgroup_made
    node.remove(two)
    assert node.has("/shared") == [False, False]


def test_a_parent_stays_while_a_pod_sits_below_it(node: Node) -> None:
    above, below = node.ensure(node.pod("/a")), node.ensure(node.pod("/a/b"))
    node.remove(above)
    assert node.has("/a/b") == [True, True]
    node.remove(below)
    assert node.has("/a") == [False, False]


def test_removing_twice_is_success(node: Node) -> None:
    pod = node.ensure(node.pod())
    asyncio.run(cgroups.remove(node.pods, pod))
    node.remove(pod)
    asyncio.run(cgroups.remove_of(node.pods, pod.id))


def test_what_cannot_be_removed_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = node.ensure(node.pod())
    monkeypatch.setattr(Hierarchies, "remove", lambda self, path: False)
    with pytest.raises(HostFailed, match="processes are left in it"):
        asyncio.run(cgroups.remove(node.pods, pod))
    with pytest.raises(HostFailed, match="processes are left in it"):
        asyncio.run(cgroups.remove_of(node.pods, pod.id))


def test_a_slice_is_no_parent_for_cgroupfs(node: Node) -> None:
    with pytest.raises(Invalid):
        node.pod("kubepods.slice")


@pytest.fixture
def systemd_node(tmp_path: Path) -> Any:
    made = Node(tmp_path, Driver.SYSTEMD)
    yield made
    made.state.close()


def test_a_slice_that_is_not_there_is_asked_of_systemd_and_goes_with_its_pod(systemd_node: Node) -> None:
    node = systemd_node
    pod = node.ensure(node.pod("kubepods-burstable-pod1.slice"))
    assert pod.cgroup_parent == "kubepods-burstable-pod1.slice"
    assert node.has("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice") == [True, True]
    node.remove(pod)
    assert node.units.dropped == ["kubepods-burstable-pod1.slice", "kubepods-burstable.slice", "kubepods.slice"]
    assert node.has("/kubepods.slice") == [False, False]


def test_a_slice_goes_from_hierarchies_that_systemd_does_not_use(systemd_node: Node) -> None:
    systemd_node.units.unused = systemd_node.tops[1:]
    pod = systemd_node.ensure(systemd_node.pod("one-pod.slice"))
    systemd_node.remove(pod)
    assert systemd_node.has("/one.slice") == [False, False]
    assert systemd_node.units.dropped == ["one-pod.slice", "one.slice"]


def test_a_slice_of_the_kubelet_stays(systemd_node: Node) -> None:
    asyncio.run(systemd_node.units.start_slice("kubepods-pod1.slice"))
    pod = systemd_node.ensure(systemd_node.pod("kubepods-pod1.slice"))
    systemd_node.remove(pod)
    assert (pod.cgroup_made, systemd_node.units.dropped) == (False, [])


def test_a_pod_without_a_parent_gets_a_slice_of_its_own(systemd_node: Node) -> None:
    node = systemd_node
    pod = node.ensure(node.pod())
    assert pod.cgroup_parent == f"crio-pod{pod.id}.slice"
    node.remove(pod)
    assert node.has("/crio.slice") == [True, True]  # until the daemon stops: the next pod wants it
    asyncio.run(cgroups.drop_default(node.pods.containers))
    assert node.has("/crio.slice") == [False, False]


def test_the_slice_of_a_pod_without_a_record_is_found_by_its_id(systemd_node: Node) -> None:
    pod = systemd_node.ensure(systemd_node.pod())
    for _ in range(2):
        asyncio.run(cgroups.remove_of(systemd_node.pods, pod.id))
    assert systemd_node.units.dropped == [pod.cgroup_parent]


def test_a_slice_with_processes_is_not_stopped(systemd_node: Node) -> None:
    pod = systemd_node.ensure(systemd_node.pod("a-b.slice"))
    (systemd_node.tops[0] / "a.slice/a-b.slice/cgroup.procs").write_text("1\n")
    with pytest.raises(HostFailed, match="processes are left in it"):
        systemd_node.remove(pod)
    assert systemd_node.units.dropped == []


def test_a_pod_of_another_driver_is_taken_down_as_it_was_made(node: Node) -> None:
    asyncio.run(node.units.start_slice("a-b.slice"))
    pod = node.state.pods.insert(
        Pod(
            id=(pod_id := PodId(new_id())),
            name=pod_id,
            config=PodConfig(name="p", uid="u", namespace="n"),
            handler="",
            state=PodState.READY,
            created_ns=1,
            cgroup_parent="a-b.slice",
            cgroup_made=True,
        )
    )
    node.remove(pod)
    assert node.units.dropped == ["a-b.slice"]


def test_what_was_made_on_the_way_goes_with_the_last_pod(node: Node) -> None:
    one, two = node.ensure(node.pod("/x/y/one")), node.ensure(node.pod("/x/two"))
    assert (one.cgroup_top, two.cgroup_top) == ("/x", "")
    node.remove(one)
    assert node.has("/x/two") == [True, True]
    node.remove(node.state.pod(two.id))
    assert node.has("/x") == [False, False]


def test_a_cgroup_that_comes_down_to_a_pod_in_the_making_stays_its_own(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (node.ensure(node.pod("/shared")) for _ in range(2))

    async def start(pods: Pods, pod: Pod) -> Pod:
        await cgroups.remove(pods, first)
        return pod

    async def laid(*_: object) -> Pod:
        return second

    monkeypatch.setattr(run, "_lay_ground", laid)
    monkeypatch.setattr(infra, "is_needed", lambda *_: True)
    monkeypatch.setattr(infra, "start", start)
    asyncio.run(run._bring_up(node.pods, Job("pod"), second, namespaces.Plan(kinds=frozenset())))
    assert node.state.pod(second.id).state is PodState.READY
    node.state.pods.delete(first.id)
    node.remove(second)
    assert node.has("/shared") == [False, False]
