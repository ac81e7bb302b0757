"""A start that fails, or whose container is killed meanwhile, leaves the node's CPUs as they were."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.aio.background import Background
from criollo.aio.jobs import Jobs
from criollo.aio.locks import KeyedLocks
from criollo.containers import tuning
from criollo.containers.sessions import Sessions
from criollo.containers.shape import Rules
from criollo.containers.start import start_container
from criollo.containers.watch import START_ERROR, record_exit
from criollo.errors import ToolFailed
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec, Tuning
from criollo.model.ids import ContainerId, PodId
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.monitor.exits import Exit
from criollo.state.records import State

POD, ID = PodId("a" * 64), ContainerId("b" * 64)


class Node:
    """Rows, and a runtime that starts nothing. `held` are the containers that have tuned CPUs."""

    def __init__(self, directory: Path, tasks: Background) -> None:
        self.state = State(directory / "state.db")
        self.tasks, self.rules, self.sessions = tasks, Rules(), Sessions()
        self.starts: Jobs[None] = Jobs("start container")
        self.locks = KeyedLocks()
        self.handlers = SimpleNamespace(get=lambda name: self)
        self.places = SimpleNamespace(bundle=lambda container_id: directory)
        self.ended: dict[str, asyncio.Event] = {}
        self.notifiers: dict[str, Any] = {}
        self.apparmor = None
        self.held: set[str] = set()
        self.dies_meanwhile = False

    def clock(self) -> int:
        return 1

    def runtime_of(self, handler: str) -> "Node":
        return self

    def cgroup(self, parent: str, container_id: str) -> str:
        return parent

    async def kill_all(self, target: object) -> None:
        pass

    async def start(self, container_id: str, *, has_poststart: bool) -> None:
        raise ToolFailed("cannot start container", ["crun"], 1, "no such file")

    def fill(self) -> None:
        config = PodConfig(name="p", uid="u", namespace="n")
        self.state.pods.insert(Pod(id=POD, name="p", config=config, handler="", state=PodState.READY, created_ns=1))
        self.state.containers.insert(
            Container(
                id=ID,
                pod_id=POD,
                name="c",
                config=ContainerConfig(name="c", image=ImageSpec(image="i")),
                handler="",
                state=ContainerState.CREATED,
                created_ns=1,
                tuning=Tuning(cpus="1"),
            )
        )


@pytest.fixture(autouse=True)
def tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tune(node: Any, container: Container) -> None:
        if node.dies_meanwhile:
            record_exit(node, container.id, Exit(137, 2, oom_killed=False))
            await asyncio.sleep(0)  # what puts the CPUs back comes before they are taken
        node.held.add(container.id)

    async def untune(node: Any, container: Container) -> None:
        node.held.discard(container.id)

    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(tuning, "untune", untune)


@pytest.mark.parametrize("dies_meanwhile", [False, True])
def test_cpus_of_a_container_that_was_not_started_are_put_back(tmp_path: Path, dies_meanwhile: bool) -> None:
    async def work() -> tuple[Any, Container]:
        async with Background() as tasks:
            node: Any = Node(tmp_path, tasks)
            node.fill()
            node.dies_meanwhile = dies_meanwhile
            with pytest.raises(ToolFailed):
                await start_container(node, ID)
            found = node.state.container(ID)
            node.state.close()
            return node, found

    node, found = asyncio.run(work())
    assert found.state is ContainerState.EXITED
    assert found.reason == ("Error" if dies_meanwhile else START_ERROR)
    assert node.held == set()
