"""Forwarded connections between a client's pair and a socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from support.waiting import until

from criollo.errors import Unavailable
from criollo.model.ids import PodId
from criollo.model.session import ForwardSession
from criollo.streaming import forward
from criollo.streaming.idle import Idle
from criollo.streaming.session import Pair

SESSION = ForwardSession(pod_id=PodId("p" * 64))
PODS = cast(Any, None)


class Client:
    """A client's stream: sends what it was given, then its end; keeps what it gets."""

    def __init__(self, *says: bytes, ends: bool = True) -> None:
        self._says, self._ends = list(says), ends
        self.got, self.events = b"", list[str]()

    async def read(self) -> bytes:
        if self._says:
            return self._says.pop(0)
        if not self._ends:
            await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.got += data

    async def close(self) -> None:
        if "close" not in self.events:
            self.events.append("close")

    async def reset(self) -> None:
        self.events.append("reset")


async def one(pair: Pair) -> AsyncIterator[Pair]:
    yield pair


def dialling(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Let the port be one end of a pair of sockets; the other."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    async def dial(*_: object) -> socket.socket:
        return ours

    monkeypatch.setattr(forward, "dial", dial)
    return theirs


def test_end_of_one_side_leaves_the_other_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        theirs = dialling(monkeypatch)
        data, error = Client(b"question"), Client()
        loop = asyncio.get_running_loop()
        with theirs:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(forward.run_forward(PODS, SESSION, one(Pair(80, data, error)), idle=Idle(0)))
                assert await loop.sock_recv(theirs, 100) == b"question"
                assert await loop.sock_recv(theirs, 100) == b""  # its end came through
                await loop.sock_sendall(theirs, b"answer")
                theirs.close()
        assert (data.got, data.events, error.got, error.events) == (b"answer", ["close"], b"", ["close"])

    asyncio.run(main())


def test_client_that_never_ends_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_LINGER_S", 0.05)

    async def main() -> None:
        theirs = dialling(monkeypatch)
        data, error = Client(ends=False), Client()
        theirs.close()
        async with asyncio.timeout(60):
            await forward.run_forward(PODS, SESSION, one(Pair(80, data, error)), idle=Idle(0))
        assert (data.events, error.events) == (["close", "reset"], ["close"])

    asyncio.run(main())


def test_failure_to_dial_goes_to_the_error_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial(*_: object) -> socket.socket:
        raise Unavailable("nothing listens there")

    monkeypatch.setattr(forward, "dial", dial)
    data, error = Client(), Client()
    asyncio.run(_forwarded(Pair(80, data, error)))
    assert (error.got, error.events, data.events) == (b"nothing listens there", ["close"], ["reset"])


def test_client_that_hears_no_error_is_left_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Client):
        async def write(self, data: bytes) -> None:
            raise ConnectionResetError("the client closed its error stream")

    async def dial(*_: object) -> socket.socket:
        raise Unavailable("nothing listens there")

    monkeypatch.setattr(forward, "dial", dial)
    data = Client()
    asyncio.run(_forwarded(Pair(80, data, Deaf())))
    assert data.events == ["reset"]


def test_socket_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> bytes:
        theirs = dialling(monkeypatch)
        data, error = Client(*[bytes(1 << 16)] * 100), Client()
        theirs.shutdown(socket.SHUT_RDWR)
        await _forwarded(Pair(80, data, error))
        theirs.close()
        return error.got

    assert b"cannot forward port 80" in asyncio.run(main())


def test_answer_of_a_pod_that_does_not_hear_the_client_out_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talkative(Client):
        async def write(self, data: bytes) -> None:
            await until(lambda: not self._says)  # it says all it has before it takes anything
            await super().write(data)

    async def main() -> None:
        theirs = dialling(monkeypatch)
        data = Talkative(*[bytes(1 << 16)] * 100, ends=False)
        theirs.sendall(b"too large")
        theirs.close()
        await _forwarded(Pair(80, data, Client()))
        assert (data.got, data.events) == (b"too large", ["close", "reset"])

    asyncio.run(main())


async def _forwarded(pair: Pair) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):
            await forward.run_forward(PODS, SESSION, one(pair), idle=Idle(0))
