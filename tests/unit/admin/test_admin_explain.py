"""`GET /explain/ID`: what is told of a pod or container, of its past and of now."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from criollo.admin.explain import explain, explain_routes
from criollo.aio.http_server import Request
from criollo.errors import NotFound
from criollo.model.ids import PodId, new_id
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.pods.history import History
from criollo.state.records import State
from criollo.telemetry import trail
from criollo.telemetry.chronicle import Chronicle
from criollo.telemetry.trail import Trail


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State(tmp_path / "state.db")) as opened:
        yield opened


@pytest.fixture
def history(state: State) -> Iterator[History]:
    made = History(state, Chronicle())
    trail.listen(made.chronicle)
    yield made
    trail.leave(made.chronicle)


def add_pod(state: State, name: str = "web", attempt: int = 0) -> Pod:
    config = PodConfig(name=name, uid="u", namespace="shop")
    pod_id = PodId(new_id())
    return state.pods.insert(
        Pod(id=pod_id, name=f"k8s_{name}_{attempt}", config=config, handler="", state=PodState.CREATING, created_ns=1)
    )


def test_what_is_waited_for_is_told_with_stage_and_step(history: History, state: State) -> None:
    with Trail("run pod sandbox", "k8s_web_0") as work:
        pod = add_pod(state)
        assert [(each.work, each.step.name) for each in explain(pod.id, history, state).waiting] == [
            ("run pod sandbox", "start")
        ]
        work.stage("sandbox network")
        [waiting] = explain(pod.id, history, state).waiting
        assert (waiting.stage, waiting.step.name) == ("sandbox network", "sandbox network")
        step = trail.program(["/opt/cni/bin/bridge"], 42, "ADD")
        [waiting] = explain(pod.id, history, state).waiting
        assert (waiting.stage, waiting.step.argv, waiting.step.pid) == ("sandbox network", ("/opt/cni/bin/bridge",), 42)
        step.end(1, "no address left")
    told = explain("shop/web", history, state)
    assert told.waiting == ()
    assert told.last_words == {"/opt/cni/bin/bridge": "no address left"}


def test_newest_is_told_and_the_others_are_named(history: History, state: State) -> None:
    first = add_pod(state)
    state.pods.delete(first.id)
    second = add_pod(state, attempt=1)
    told = explain("web", history, state)
    assert (told.id, told.state) == (second.id, "CREATING")
    assert [(each.id, each.state) for each in told.others] == [(first.id, "REMOVED")]


@pytest.mark.parametrize("words", ["", "nobody", "\x1b]0;x"])
def test_nobody_is_not_found(history: History, state: State, words: str) -> None:
    with pytest.raises(NotFound) as refused:
        explain(words, history, state)
    assert "\x1b" not in str(refused.value)


def test_routes_take_ids_and_names(history: History, state: State) -> None:
    pod = add_pod(state)
    routes = explain_routes(history, state)

    def ask(path: str, *words: str) -> Any:
        return json.loads(
            asyncio.run(routes["GET", path](Request(method="GET", path=path, query={}, headers={}, body=b"", words=words))).body
        )

    assert ask("/explain/{}", pod.id[:10])["id"] == pod.id
    assert ask("/explain/{}/{}", "shop", "web")["id"] == pod.id


def test_names_are_told_printable(history: History, state: State) -> None:
    pod = add_pod(state, name="evil\x1b]0;x\x07")
    assert explain(pod.id, history, state).title.isprintable()
