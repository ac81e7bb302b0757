"""Recovery that goes on beside the first requests: a client may have removed what it looks at."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.daemon import recovery
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId
from criollo.model.pod import InfraProcess, Pod, PodConfig, PodState
from criollo.state.records import State
from criollo.wire.runtime import Status

POD, ID = PodId("a" * 64), ContainerId("b" * 64)
NOBODY = InfraProcess(container_id=POD, pid=1, pid_started=1, monitor_pid=1, monitor_started=1)


def fill(state: State) -> tuple[Pod, Container]:
    pod = Pod(
        id=POD,
        name="p",
        config=PodConfig(name="p", uid="u", namespace="n"),
        handler="",
        state=PodState.READY,
        created_ns=1,
        namespaces={"pid": "/proc/1/ns/none"},
        infra=NOBODY,
    )
    container = Container(
        id=ID,
        pod_id=POD,
        name="c",
        config=ContainerConfig(name="c", image=ImageSpec(image="i")),
        handler="",
        state=ContainerState.RUNNING,
        created_ns=1,
    )
    return state.pods.insert(pod), state.containers.insert(container)


@pytest.mark.parametrize("removed", [False, True])
def test_a_container_that_was_not_started_is_created_unless_it_is_gone(tmp_path: Path, removed: bool) -> None:
    async def seen(container_id: str) -> Any:
        if removed:
            state.containers.delete(container_id)
        return SimpleNamespace(status=Status.CREATED)

    with contextlib.closing(State(tmp_path / "state.db")) as state:
        _, container = fill(state)
        handlers = SimpleNamespace(get=lambda name: SimpleNamespace(state=seen))
        node: Any = SimpleNamespace(state=state, handlers=handlers)
        asyncio.run(recovery._correct_start(node, container))
        found = state.containers.get(ID)
        assert (found and found.state) == (None if removed else ContainerState.CREATED)


def test_a_pod_that_is_removed_while_its_processes_are_pinned_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pin(pods: Any, pod: Pod, process: InfraProcess) -> Pod:
        state.containers.delete(ID)
        state.pods.delete(pod.id)
        return pod

    monkeypatch.setattr(recovery.infra, "pin_pids", pin)
    monkeypatch.setattr(recovery.procfs, "is_alive", lambda pid, started: True)
    with contextlib.closing(State(tmp_path / "state.db")) as state:
        pod, _ = fill(state)
        node: Any = SimpleNamespace(state=state)
        asyncio.run(recovery._recover_pod(node, pod, rebooted=False))
        assert len(state.pods) == 0
