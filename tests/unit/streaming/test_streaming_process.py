"""An exec or attach to its status."""

import asyncio
from typing import Any, cast

import pytest

from criollo.aio.streams import Streams
from criollo.errors import ToolFailed, WrongState
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import AttachSession, ExecSession, ForwardSession
from criollo.streaming import process
from criollo.streaming.session import Status

PODS = cast(Any, type("Pods", (), {"containers": None}))
EXEC = ExecSession(container_id=ContainerId("c" * 64), argv=("true",), stdout=True)
ATTACH = AttachSession(container_id=ContainerId("c" * 64), stdout=True)
FORWARD = ForwardSession(pod_id=PodId("d" * 64))


def giving(result: object) -> Any:
    async def verb(*_: object) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return verb


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (0, Status()),
        (3, Status(exit_code=3)),
        (ToolFailed("cannot exec", ["crun"], 1, "no"), Status(failure="cannot exec: crun failed (exit status 1): no")),
    ],
)
def test_exec_ends_with_its_code_or_its_failure(monkeypatch: pytest.MonkeyPatch, result: object, status: Status) -> None:
    monkeypatch.setattr(process, "exec_stream", giving(result))
    assert asyncio.run(process.run_process(PODS, EXEC, Streams())) == status


def test_attach_ends_well_with_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "attach", giving(None))
    assert asyncio.run(process.run_process(PODS, ATTACH, Streams())) == Status()


def test_lost_client_is_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "attach", giving(ConnectionResetError("gone")))
    with pytest.raises(ConnectionResetError):
        asyncio.run(process.run_process(PODS, ATTACH, Streams()))


@pytest.mark.parametrize(("name", "session"), [("check_exec", EXEC), ("check_attach", ATTACH), ("check_forward", FORWARD)])
def test_each_session_has_its_check(monkeypatch: pytest.MonkeyPatch, name: str, session: Any) -> None:
    def refuse(*_: object) -> None:
        raise WrongState("thing", "x", "STOPPED", "RUNNING")

    monkeypatch.setattr(process, name, refuse)
    with pytest.raises(WrongState):
        process.check_session(PODS, session)
