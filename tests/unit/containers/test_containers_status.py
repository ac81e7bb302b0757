"""What a container's status adds, and whom its statistics are asked of."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.containers import status
from criollo.errors import Invalid
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId
from criollo.storage.base import Usage
from criollo.storage.usages import Measured

POD = PodId("a" * 64)


def container(number: int, state: ContainerState = ContainerState.RUNNING, **fields: Any) -> Container:
    config = ContainerConfig(name="c", image=ImageSpec(image="i"))
    id = ContainerId(f"{number:064x}")
    return Container(id=id, pod_id=POD, name=f"c{number}", config=config, handler="", state=state, created_ns=0, **fields)


class Node:
    """Only what statistics look at; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.forgotten: list[str] = []
        self.collector = self.usages = self
        self.rows = {container(number).id for number in (1, 2)}
        self.goes = ""  # whose row goes while its counters are read
        self.state = SimpleNamespace(pods={POD: SimpleNamespace(cgroup_parent="/kubepods/p")}, containers=self.rows)

    def runtime_of(self, handler: str) -> Any:
        return SimpleNamespace(cgroup=lambda parent, container_id: f"{parent}/crio-{container_id}")

    def collect(self, places: Mapping[str, str], *, anew: bool) -> dict[str, str]:
        self.asked.append(dict(places))
        self.rows.discard(ContainerId(self.goes))
        return {key: f"sample of {place}" for key, place in places.items()}

    def forget(self, name: str) -> None:
        self.forgotten.append(name)

    async def known(self, ids: Sequence[str], *, fresh: bool) -> list[Measured | None]:
        self.asked += [fresh, *ids]
        return [Measured(Usage(number, 1), 5) for number, _ in enumerate(ids)]


def node_at(runroot: Path) -> Any:
    return SimpleNamespace(places=SimpleNamespace(bundle=lambda object_id: runroot / object_id))


def test_spec_is_what_the_bundle_has(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.json").write_text('{"ociVersion": "1.0.2"}')
    assert asyncio.run(status.spec_of(node_at(tmp_path), "c")) == b'{"ociVersion": "1.0.2"}'


def test_without_a_bundle_the_spec_is_empty(tmp_path: Path) -> None:
    assert asyncio.run(status.spec_of(node_at(tmp_path), "c")) == b"{}"


def test_a_spec_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with (tmp_path / "c/config.json").open("wb") as file:
        file.truncate(status.MAX_SPEC_BYTES + 1)
    with pytest.raises(Invalid):
        asyncio.run(status.spec_of(node_at(tmp_path), "c"))


def test_verbose_has_the_names_that_tools_read() -> None:
    info = status.verbose(container(1, pid=77, privileged=True, trouble="stuck"), b'{"hostname":"h"}')
    assert json.loads(info["info"]) == {
        "sandboxID": POD,
        "pid": 77,
        "runtimeSpec": {"hostname": "h"},
        "privileged": True,
        "trouble": "stuck",
    }


def test_only_running_containers_have_a_sample_and_all_have_their_writable_layer() -> None:
    node: Any = Node()
    running, exited = container(1), container(2, ContainerState.EXITED)
    first, second = asyncio.run(status.stats_of(node, [exited, running], fresh=True))
    assert node.asked == [{running.id: f"/kubepods/p/crio-{running.id}"}, True, exited.id, running.id]
    assert node.forgotten == []
    assert (first.sample, first.writable) == (None, Measured(Usage(0, 1), 5))
    assert (second.sample, second.writable) == (f"sample of /kubepods/p/crio-{running.id}", Measured(Usage(1, 1), 5))


def test_of_a_container_that_is_removed_while_its_counters_are_read_nothing_is_kept() -> None:
    node: Any = Node()
    gone, there = container(1), container(2)
    node.goes = gone.id
    found = asyncio.run(status.stats_of(node, [gone, there]))
    assert node.forgotten == [gone.id]
    assert node.asked[1:] == [False, there.id]
    assert [each.writable is None for each in found] == [True, False]
