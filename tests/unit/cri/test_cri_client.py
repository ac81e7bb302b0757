"""Our own client against our own server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cri_parties import RUNTIME, version

from criollo import errors
from criollo.cri import client, grpc, server
from criollo.cri.client import Client, connect, connect_socket
from criollo.cri.errors import Code, Refused
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.server import Server


def with_client(handlers: dict[str, Any], use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        ours, theirs = socket.socketpair()
        async with asyncio.TaskGroup() as group:
            group.create_task(Server({RUNTIME: {"Version": version, **handlers}}).serve_on(ours))
            async with connect_socket(theirs) as client:
                return await use(client)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [
        errors.Invalid("field", "x", "y"),
        errors.NotFound("pod", "x"),
        errors.Exists("pod", "x", "y"),
        errors.WrongState("pod", "x", "READY", "NOTREADY"),
        errors.Denied("no"),
        errors.Unauthenticated("no"),
        errors.Exhausted("full"),
        errors.Unavailable("later"),
        errors.TimedOut("late"),
        errors.Damaged("torn"),
        errors.Unsupported("never"),
    ],
)
def test_errors_come_back_as_their_class(error: errors.CriolloError) -> None:
    async def fails(request: Any) -> Any:
        raise error

    async def use(client: Client) -> None:
        with pytest.raises(type(error)) as caught:
            await client.runtime("StartContainer", pb.StartContainerRequest())
        assert str(caught.value) == str(error)

    with_client({"StartContainer": fails}, use)


def test_deadline_becomes_timed_out() -> None:
    async def hangs(request: Any) -> Any:
        await asyncio.Event().wait()

    async def use(client: Client) -> None:
        with pytest.raises(errors.TimedOut):
            await client.runtime("StartContainer", pb.StartContainerRequest(), timeout_s=0.05)

    with_client({"StartContainer": hangs}, use)


def test_abandoned_stream_cancels_the_handler() -> None:
    cancelled = asyncio.Event()

    async def endless(request: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield pb.ContainerEventResponse(container_id="x")
                await asyncio.sleep(0)
        finally:
            cancelled.set()

    async def use(client: Client) -> None:
        stream = client.stream(RUNTIME, "GetContainerEvents", pb.GetEventsRequest())
        async for _ in stream:
            break
        await stream.aclose()
        async with asyncio.timeout(60):
            await cancelled.wait()
        assert (await client.runtime("Version", pb.VersionRequest())).version == "0.1.0"

    with_client({"GetContainerEvents": endless}, use)


def test_nobody_on_the_path_is_unavailable(tmp_path: Path) -> None:
    async def main() -> None:
        async with connect(tmp_path / "nobody"):
            pass

    with pytest.raises(errors.Unavailable, match="is the daemon running"):
        asyncio.run(main())


def test_server_that_goes_away_is_unavailable() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        async with connect_socket(theirs) as client:
            asyncio.get_running_loop().call_soon(ours.close)
            with pytest.raises(errors.Unavailable):
                await client.runtime("Version", pb.VersionRequest())

    asyncio.run(main())


def test_large_messages_travel_both_ways_at_once() -> None:
    async def mirror(request: Any) -> Any:
        return pb.VersionResponse(version=request.version)

    async def use(client: Client) -> list[int]:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(client.runtime("Version", pb.VersionRequest(version="x" * (5 << 20)))) for _ in range(4)]
        return [len(call.result().version) for call in calls]

    assert with_client({"Version": mirror}, use) == [5 << 20] * 4


def test_an_answer_that_cannot_be_read_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def compressed(message: bytes) -> bytes:
        return b"\1" + len(message).to_bytes(4, "big") + message

    monkeypatch.setattr(server, "grpc", SimpleNamespace(**{**vars(grpc), "pack": compressed}))

    async def use(client: Client) -> None:
        with pytest.raises(errors.Unsupported, match=r"cannot read the answer to .*Version: compressed"):
            await client.runtime("Version", pb.VersionRequest())

    with_client({}, use)


def test_a_strangers_answer_is_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_STRANGERS_BYTES", 1000)

    async def large(request: Any) -> Any:
        return pb.VersionResponse(version="x" * (1 << 20))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:

            class Door(asyncio.Protocol):
                def connection_made(self, transport: Any) -> None:
                    transport.pause_reading()
                    group.create_task(Server({RUNTIME: {"Version": large}}).serve(transport))

            listener = await loop.create_server(Door, "127.0.0.1", 0)
            port = listener.sockets[0].getsockname()[1]
            async with client.connect_to("127.0.0.1", port) as call:
                with pytest.raises(errors.Exhausted, match="the answer is over 1000 bytes"):
                    await call(f"/{RUNTIME}/Version", b"", 10)
            listener.close()

    asyncio.run(main())


def test_a_refusal_with_text_that_is_not_utf_8_costs_no_other_call() -> None:
    async def fails(request: Any) -> Any:
        raise Refused(Code.UNKNOWN, "cannot remove a\udcffb")

    async def use(client: Client) -> str:
        with pytest.raises(errors.CriolloError, match=r"a\\udcffb"):
            await client.runtime("StartContainer", pb.StartContainerRequest())
        return str((await client.runtime("Version", pb.VersionRequest())).version)

    assert with_client({"StartContainer": fails}, use) == "0.1.0"
