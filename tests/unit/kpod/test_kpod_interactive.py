"""What an attach has to say at its end; sessions themselves: tests/node/kpod/test_node_kpod_interactive.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from criollo.config.settings import Settings
from criollo.cri.pb import api_pb2 as pb
from criollo.kpod import interactive
from criollo.kpod.interactive import Manner, attend
from criollo.kpod.session import Session


class Client:
    """Tells how a container is, once."""

    def __init__(self, state: int, code: int) -> None:
        self._answers = [pb.ContainerStatusResponse(status=pb.ContainerStatus(state=state, exit_code=code))]

    async def runtime(self, method: str, request: Any) -> Any:
        assert method == "ContainerStatus"
        return self._answers.pop()


@pytest.mark.parametrize(
    ("state", "code", "status"), [(pb.CONTAINER_RUNNING, 0, 0), (pb.CONTAINER_CREATED, 0, 0), (pb.CONTAINER_EXITED, 7, 7)]
)
def test_an_attach_that_is_over_asks_once_how_the_container_is(
    monkeypatch: pytest.MonkeyPatch, state: int, code: int, status: int
) -> None:
    @contextlib.asynccontextmanager
    async def attached(*_: object) -> AsyncIterator[None]:
        yield

    async def converse(*_: object) -> int:
        return 0

    monkeypatch.setattr(interactive, "attached", attached)
    monkeypatch.setattr(interactive, "converse", converse)
    session = Session(Client(state, code), Path("/unused"), Settings(), in_process=False)  # type: ignore[arg-type]
    assert asyncio.run(attend(session, "c" * 64, Manner(stdin=True, tty=False, keys=b""))) == status
