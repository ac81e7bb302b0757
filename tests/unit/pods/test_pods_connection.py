"""The check of a pod's network after a restart: what it finds is told in the pod's record."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from criollo.aio.locks import KeyedLocks
from criollo.errors import NotFound, ToolFailed
from criollo.model.ids import PodId
from criollo.model.pod import NamespaceMode, Namespaces, Pod, PodConfig, PodSecurity, PodState
from criollo.network.attachment import Attachment
from criollo.pods import connection
from criollo.state.records import State

POD = PodId("a" * 64)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State(tmp_path / "state.db")) as opened:
        config = PodConfig(name="p", uid="u", namespace="n")
        opened.pods.insert(Pod(id=POD, name="p", config=config, handler="", state=PodState.READY, created_ns=1))
        yield opened


class Network:
    """Answers CHECK as it is told."""

    def __init__(self, answer: Exception | None = None, *, hangs: bool = False) -> None:
        self.answer, self.hangs, self.asked = answer, hangs, 0

    async def check(self, attachment: Attachment) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.answer is not None:
            raise self.answer


def check(state: State, network: Network, *, limit_s: float = 60) -> str:
    """What the pod's record says afterwards."""
    pods: Any = SimpleNamespace(state=state, network=network, locks=KeyedLocks())
    asyncio.run(connection.check(pods, POD, limit_s=limit_s))
    return state.pod(POD).trouble


def test_a_sound_network_is_no_trouble(state: State) -> None:
    assert check(state, Network()) == ""


@pytest.mark.parametrize("error", [ToolFailed("cannot check network", ["bridge"], 1, "no eth0"), NotFound("attachment", POD)])
def test_what_a_plugin_says_is_the_pods_trouble_until_it_is_well(state: State, error: Exception) -> None:
    assert check(state, Network(error)) == str(error)
    assert state.pod(POD).state is PodState.READY
    assert check(state, Network()) == ""


def test_a_plugin_that_hangs_is_left_at_the_limit(state: State) -> None:
    assert "no answer within 0.01 s" in check(state, Network(hangs=True), limit_s=0.01)


def test_who_has_no_network_of_its_own_or_has_gone_down_is_not_asked_about(state: State) -> None:
    network = Network(NotFound("attachment", POD))
    host = PodSecurity(namespaces=Namespaces(network=NamespaceMode.NODE))
    ready = state.pod(POD)
    state.pods.put(msgspec.structs.replace(ready, config=msgspec.structs.replace(ready.config, security=host)))
    assert check(state, network) == ""
    state.pods.put(msgspec.structs.replace(ready, state=PodState.NOTREADY))
    assert check(state, network) == ""
    state.pods.delete(POD)
    asyncio.run(connection.check(SimpleNamespace(state=state, network=network, locks=KeyedLocks()), POD, limit_s=1))  # type: ignore[arg-type]
    assert network.asked == 0


def test_a_deletion_that_goes_on_failing_is_told_and_written_once(state: State, caplog: pytest.LogCaptureFixture) -> None:
    class Refusing:
        async def delete(self, attachment: Attachment) -> None:
            raise ToolFailed("cannot tear down network", ["bridge"], 1, "busy")

    changes: list[Pod | None] = []
    state.pods.changed = lambda before, after: changes.append(after)
    pods: Any = SimpleNamespace(state=state, network=Refusing(), locks=KeyedLocks())
    for _ in range(3):
        asyncio.run(connection.disconnect(pods, POD))
    assert "busy" in state.pod(POD).trouble
    assert caplog.text.count("network deletion failed") == 1
    assert len(changes) == 1
