"""The sweeper: one object's trouble is its own, and is told once."""

import asyncio
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.aio.locks import KeyedLocks
from criollo.daemon import leftovers, recovery, sweep
from criollo.errors import HostFailed
from criollo.model.container import ContainerState


def container(container_id: str) -> Any:
    return SimpleNamespace(id=container_id, state=ContainerState.REMOVING)


def node(monkeypatch: pytest.MonkeyPatch, errors: dict[str, Exception]) -> tuple[Any, list[str]]:
    """Containers whose teardown fails as `errors` say, and whose it was."""
    torn_down: list[str] = []

    async def tear_down(containers: Any, container_id: str) -> None:
        torn_down.append(container_id)
        if container_id in errors:
            raise errors[container_id]

    async def nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(sweep, "tear_down_container", tear_down)
    monkeypatch.setattr(sweep, "_house", nothing)
    state = SimpleNamespace(containers=[container("a"), container("b"), container("c")], pods=[])
    return SimpleNamespace(
        containers=SimpleNamespace(state=state, locks=KeyedLocks()), state=state, locks=KeyedLocks()
    ), torn_down


@pytest.mark.parametrize("error", [HostFailed("cannot"), OSError(errno.EIO, "Input/output error")])
def test_what_cannot_be_torn_down_keeps_nobody_else(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    pods, torn_down = node(monkeypatch, {"a": error})
    asyncio.run(sweep.sweep_once(pods, sweep.Failures()))
    assert torn_down == ["a", "b", "c"]


def test_the_same_failure_is_told_once_another_one_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: dict[str, Exception] = {"a": HostFailed("busy")}
    pods, _ = node(monkeypatch, errors)
    failures, told = sweep.Failures(), []
    for cause in ("busy", "busy", "full", "", "full"):
        errors.update({"a": HostFailed(cause)} if cause else {})
        if not cause:
            errors.clear()
        asyncio.run(sweep.sweep_once(pods, failures))
        failures.turn()
        told.append(len([each for each in caplog.records if each.levelname == "WARNING"]))
    assert told == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("border", [recovery._quietly, leftovers._tell])
def test_the_host_refusing_one_object_does_not_stop_a_start(border: Any) -> None:
    async def refused() -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    asyncio.run(border(refused(), "a"))
