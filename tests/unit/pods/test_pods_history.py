"""Changes of records reach the chronicle and the metrics, and everybody who heard of them before."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.waiting import until

from criollo.containers.watch import OOM_KILLED
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId, new_id
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.monitor.exits import MONITOR_LOST
from criollo.pods.history import History
from criollo.state.records import State
from criollo.telemetry import hooks
from criollo.telemetry.chronicle import Chronicle
from criollo.telemetry.node_metrics import NodeMetrics


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State(tmp_path / "state.db")) as opened:
        yield opened


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> NodeMetrics:
    made = NodeMetrics()
    monkeypatch.setattr(hooks, "metrics", made)
    return made


def add_pod(state: State) -> Pod:
    config = PodConfig(name="web", uid="u", namespace="shop")
    return state.pods.insert(
        Pod(id=PodId(new_id()), name="k8s_web", config=config, handler="", state=PodState.CREATING, created_ns=1)
    )


def add_container(state: State, pod: Pod, name: str = "k8s_app") -> Container:
    config = ContainerConfig(name="app", image=ImageSpec(image="i"))
    made = Container(
        id=ContainerId(new_id()), pod_id=pod.id, name=name, config=config, handler="", state=ContainerState.CREATING,
        created_ns=1,
    )  # fmt: skip
    return state.containers.insert(made)


def ended(state: State, container: Container, **fields: Any) -> Container:
    running = state.containers.put(msgspec.structs.replace(container, state=ContainerState.RUNNING))
    return state.containers.put(msgspec.structs.replace(running, state=ContainerState.EXITED, **fields))


def moves(history: History, record_id: str) -> list[tuple[str, str]]:
    [story] = history.chronicle.find(record_id)
    return [(move.state, move.text) for move in story.moves]


def test_changes_are_told_in_order_and_after_those_who_listened_before(state: State) -> None:
    told: list[str] = []
    state.pods.changed = lambda before, after: told.append(str((after or before).state if after or before else ""))
    history = History(state, Chronicle())
    pod = add_pod(state)
    pod = state.pods.put(msgspec.structs.replace(pod, state=PodState.READY))
    pod = state.pods.put(msgspec.structs.replace(pod, trouble="cannot reach it"))
    state.pods.delete(pod.id)
    assert [name for name, _ in moves(history, pod.id)] == ["CREATING", "READY", "TROUBLE", "REMOVED"]
    assert moves(history, pod.id)[2][1] == "cannot reach it"
    assert told[:2] == ["CREATING", "READY"]


def test_what_was_there_before_is_known_by_its_names(state: State) -> None:
    pod = add_pod(state)
    container = add_container(state, pod)
    history = History(state, Chronicle())
    assert [story.subject.id for story in history.chronicle.find("shop/web")] == [pod.id]
    assert [story.subject.id for story in history.chronicle.of_pod(pod.id)] == [container.id]


def test_exit_is_told_with_its_cause_and_counted(state: State, counted: NodeMetrics) -> None:
    history = History(state, Chronicle())
    pod = add_pod(state)
    container = ended(state, add_container(state, pod), exit_code=137, reason=OOM_KILLED)
    assert moves(history, container.id)[-1] == ("EXITED", "exit code 137, OOMKilled")
    assert 'containers_oom_count_total{name="k8s_app"} 1' in counted.page()
    state.containers.delete(container.id)
    assert 'containers_oom_count_total{name="k8s_app"}' not in counted.page()
    assert "containers_oom_total 1" in counted.page()


def test_lost_monitor_is_counted(state: State, counted: NodeMetrics) -> None:
    History(state, Chronicle())
    ended(state, add_container(state, add_pod(state)), exit_code=137, message=MONITOR_LOST)
    assert 'containers_stopped_monitor_count{name="k8s_app"} 1' in counted.page()


def test_kill_for_memory_is_told_while_the_container_lives_and_counted_once(state: State, counted: NodeMetrics) -> None:
    history = History(state, Chronicle())
    container = add_container(state, add_pod(state))
    history.out_of_memory(container.id)  # not running: its exit will tell
    running = state.containers.put(msgspec.structs.replace(container, state=ContainerState.RUNNING))
    for _ in range(2):
        history.out_of_memory(container.id)
    history.out_of_memory("unknown")
    assert [name for name, _ in moves(history, container.id)] == ["CREATING", "RUNNING", "OOM"]
    state.containers.put(msgspec.structs.replace(running, state=ContainerState.EXITED, exit_code=137, reason=OOM_KILLED))
    assert "containers_oom_total 1" in counted.page()


def test_running_containers_are_listened_for_until_they_end(state: State, tmp_path: Path) -> None:
    pod = add_pod(state)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    names: dict[str, str] = {}

    async def main() -> list[str]:
        first = add_container(state, pod)
        names[first.id] = "before"
        state.containers.put(msgspec.structs.replace(first, state=ContainerState.RUNNING))
        history = History(state, Chronicle())
        history.watch_memory(lambda container_id: tmp_path / names[container_id], lambda _: None)
        try:
            (tmp_path / "before" / "oom").touch()
            await until(lambda: "OOM" in [move for move, _ in moves(history, first.id)])
            state.containers.put(msgspec.structs.replace(first, state=ContainerState.EXITED))
        finally:
            history.close()
            history.close()
        return [move for move, _ in moves(history, first.id)]

    assert asyncio.run(main()) == ["OOM", "EXITED"]


def test_kills_are_heard_of_by_the_counters_of_the_cgroup_where_there_are_any(state: State, tmp_path: Path) -> None:
    def events(container: Container) -> Path:
        file = tmp_path / container.id
        file.write_text("oom_kill 1\n")
        return file

    async def main() -> list[list[str]]:
        pod = add_pod(state)
        first, second = add_container(state, pod), add_container(state, pod, "k8s_second")
        state.containers.put(msgspec.structs.replace(first, state=ContainerState.RUNNING))
        history = History(state, Chronicle())
        history.watch_memory(lambda _: tmp_path / "none", events)
        state.containers.put(msgspec.structs.replace(second, state=ContainerState.RUNNING))
        history.close()
        return [[move for move, _ in moves(history, each.id)] for each in (first, second)]

    assert asyncio.run(main()) == [[], ["RUNNING", "OOM"]], "an earlier daemon has told of the first"
