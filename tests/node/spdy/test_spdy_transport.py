"""Our SPDY and npm's spdy-transport understand each other, either of them as client or server, with flow control."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import spdy_transport
from support.waiting import until

from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream
from criollo.wire.spdy_windows import DEFAULT_WINDOW

pytestmark = pytest.mark.skipif(spdy_transport.library() is None, reason="no node, or npm's spdy-transport cannot be fetched")

LIMIT_S = 120


async def everything(stream: SpdyStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


async def echo(stream: SpdyStream) -> None:
    while part := await stream.read():
        await stream.write(part)
    await stream.close()


async def sink(stream: SpdyStream) -> None:
    octets = await everything(stream)
    await stream.write(f"{len(octets)} {hashlib.sha256(octets).hexdigest()}".encode())
    await stream.close()


async def source(stream: SpdyStream) -> None:
    stream.drop()
    left = int(stream.headers["size"])
    while left:
        size = min(200_000, left)
        await stream.write(bytes(size))
        left -= size
    await stream.close()


async def later(stream: SpdyStream) -> None:
    await everything(stream)
    await stream.write(b"after your end")
    await stream.close()


async def reset(stream: SpdyStream) -> None:
    await stream.reset()


async def aborted(stream: SpdyStream) -> None:
    with pytest.raises(ConnectionResetError):
        await everything(stream)


async def stuck(stream: SpdyStream) -> None:
    await asyncio.Event().wait()


async def leave(stream: SpdyStream) -> None:
    await stream.close()


DO: dict[str, Callable[[SpdyStream], Awaitable[None]]] = {
    "echo": echo,
    "sink": sink,
    "source": source,
    "later": later,
    "reset": reset,
    "aborted": aborted,
    "stuck": stuck,
    "goaway": leave,
}


async def one(stream: SpdyStream) -> None:
    await stream.reply()
    await DO[stream.headers["do"]](stream)


async def serve(connection: SpdyConnection, group: asyncio.TaskGroup) -> None:
    tasks = []
    while (stream := await connection.accept()) is not None:
        tasks.append(group.create_task(one(stream)))
        if stream.headers["do"] == "goaway":
            break
    for task in tasks:
        if not connection.ended.is_set():
            await asyncio.wait([task, ended := group.create_task(ending(connection))], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
        task.cancel()
    await connection.close()


async def ending(connection: SpdyConnection) -> None:
    await connection.ended.wait()


def client(scenario: str) -> list[str]:
    """What their client prints when our server does what it is asked for."""

    async def talk() -> list[str]:
        connection = SpdyConnection(max_streams=100)
        server = await asyncio.get_running_loop().create_server(lambda: connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with spdy_transport.asking(port, scenario) as process:
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
                serving = group.create_task(serve(connection, group))
                await until(lambda: process.poll() is not None, LIMIT_S)
                await serving
            server.close()
            return process.stdout.read().decode().split("\n")

    return asyncio.run(talk())


def test_many_streams_of_their_client() -> None:
    assert client("echo")[:20] == ["same"] * 20


def test_their_client_uploads() -> None:
    assert client("upload")[0] == "same"


def test_their_client_downloads() -> None:
    assert client("download")[0] == str(64 << 20)


def test_their_client_closes_one_direction() -> None:
    assert client("halfClose")[0] == "after your end"


def test_our_window_holds_back_one_stream_of_their_client_and_no_other() -> None:
    assert client("stuck")[:2] == [str(8 << 20), "held back"]


def test_their_window_holds_back_one_stream_of_our_server_and_no_other() -> None:
    assert client("unread")[0] == str(8 << 20)


def test_their_client_understands_our_reset() -> None:
    assert "closed" in client("reset")


def test_we_understand_their_clients_reset() -> None:
    assert "closed" in client("abort")


def test_their_client_pings() -> None:
    assert client("ping")[0] == "pong"


def test_their_client_understands_our_goodbye() -> None:
    assert "closed" in client("goaway")


def ask(talk: Callable[[SpdyConnection], Awaitable[Any]]) -> None:
    """Let our client talk to their server."""

    async def limited(port: int) -> None:
        connection = SpdyConnection(is_client=True, max_streams=0)
        async with asyncio.timeout(LIMIT_S):
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
            await talk(connection)
            await connection.close()
            assert connection.ended.is_set()

    with spdy_transport.serving() as port:
        asyncio.run(limited(port))


async def opened(connection: SpdyConnection, do: str, size: int = 0) -> SpdyStream:
    return await connection.open({":method": "POST", ":path": "/", "do": do, "size": str(size)})


def test_many_streams_to_their_server() -> None:
    async def bounce(connection: SpdyConnection) -> None:
        stream, octets = await opened(connection, "echo"), os.urandom(1 << 20)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(everything(stream))
            await stream.write(octets)
            await stream.close()
        assert answer.result() == octets

    async def talk(connection: SpdyConnection) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(bounce(connection))

    ask(talk)


def test_we_upload_to_their_server() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream, octets = await opened(connection, "sink"), os.urandom(64 << 20)
        await stream.write(octets)
        await stream.close()
        assert await everything(stream) == f"{len(octets)} {hashlib.sha256(octets).hexdigest()}".encode()

    ask(talk)


def test_we_download_from_their_server() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream = await opened(connection, "source", 64 << 20)
        await stream.close()
        assert len(await everything(stream)) == 64 << 20

    ask(talk)


def test_their_server_answers_after_our_end() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream = await opened(connection, "later")
        await stream.close()
        assert await everything(stream) == b"after your end"

    ask(talk)


def test_their_window_holds_back_one_stream_of_ours_and_no_other() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream = await opened(connection, "stuck")
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(stream.write(bytes(4 << 20)))
            other = await opened(connection, "sink")
            await other.write(bytes(8 << 20))
            await other.close()
            assert (await everything(other)).startswith(b"8388608 ")
            await connection.ping()
            assert not writing.done()
            writing.cancel()

    ask(talk)


def test_our_window_holds_back_one_stream_of_theirs_and_no_other() -> None:
    async def talk(connection: SpdyConnection) -> None:
        held, other = await opened(connection, "source", 64 << 20), await opened(connection, "source", 8 << 20)
        assert len(await everything(other)) == 8 << 20
        assert DEFAULT_WINDOW <= held.unread_bytes < 2 << 20
        assert len(await everything(held)) == 64 << 20

    ask(talk)


def test_we_understand_their_servers_reset() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream = await opened(connection, "reset")
        with pytest.raises(ConnectionResetError):
            await stream.read()

    ask(talk)


def test_their_server_pings() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream = await opened(connection, "ping")
        assert await everything(stream) == b"pong"

    ask(talk)


def test_their_server_says_goodbye() -> None:
    async def talk(connection: SpdyConnection) -> None:
        stream = await opened(connection, "goaway")
        assert await everything(stream) == b""
        assert await connection.accept() is None

    ask(talk)
