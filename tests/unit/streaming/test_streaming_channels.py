"""Channels as Readers and Writers."""

import asyncio
from typing import Any

import pytest
from support.websocket_peer import Peer
from support.websocket_sessions import TTY, cat, read_all, run, until_ended
from wsproto import events as ws

from criollo.streaming.channels import BUFFER_BYTES
from criollo.streaming.session import Status
from criollo.streaming.websocket import Served


def test_second_end_of_stdin_and_bytes_after_it_mean_nothing() -> None:
    async def client(peer: Peer) -> tuple[Any, Any]:
        await peer.send_when_accepted(ws.Message(b"\0a"), ws.Message(b"\xff\0"), ws.Message(b"\xff\0"), ws.Message(b"\0b"))
        return [await peer.message() for _ in range(2)], (await peer.closed()).code

    messages, code = run(cat, client)
    assert messages[0] == b"\1a"
    assert messages[1][:1] == b"\3"
    assert code == 1000


def test_close_of_the_client_ends_stdin_and_tells() -> None:
    found: list[bytes] = []

    async def server(served: Served) -> None:
        found.append(await read_all(served))
        await served.connection.ended.wait()
        found.append(served.connection.failure.encode())

    async def client(peer: Peer) -> None:
        await peer.send_when_accepted(ws.Message(b"\0last"), ws.CloseConnection(code=1000))
        assert (await peer.closed()).code == 1000

    run(server, client, offers=["v4.channel.k8s.io"])
    assert found == [b"last", b""]


def test_stdin_that_nobody_reads_holds_back_the_client_and_loses_nothing() -> None:
    sent = bytes(range(256)) * (1 << 16)
    found: list[bytes] = []
    may_read = asyncio.Event()

    async def server(served: Served) -> None:
        stdin: Any = served.offered.streams.stdin
        await may_read.wait()
        assert BUFFER_BYTES <= stdin._waiting_bytes <= BUFFER_BYTES + (1 << 18)
        found.append(await read_all(served))

    async def client(peer: Peer) -> None:
        await peer.accepted()
        messages = [ws.Message(b"\0" + sent[start : start + 65536]) for start in range(0, len(sent), 65536)]
        async with asyncio.TaskGroup() as group:
            group.create_task(peer.send(*messages, ws.Message(b"\xff\0")))
            while (stuck := peer.writer.transport.get_write_buffer_size()) < 1 << 20:
                await asyncio.sleep(0)
            for _ in range(1000):  # turns of the loop, in which the server takes what it wants
                await asyncio.sleep(0)
            assert 0 < peer.writer.transport.get_write_buffer_size() <= stuck
            may_read.set()
        await peer.closed()

    run(server, client)
    assert found == [sent]


def test_resizes_give_the_last_and_pass_over_what_is_none() -> None:
    found: list[Any] = []

    async def server(served: Served) -> None:
        sizes = served.offered.streams.sizes
        assert sizes is not None
        assert served.offered.streams.stdin is not None
        await served.offered.streams.stdin.read()  # sent after all of the sizes
        found.append(await anext(sizes))
        await served.connection.ended.wait()
        found.extend([size async for size in sizes])

    async def client(peer: Peer) -> None:
        junk = [b"\4[]", b'\4{"Width":-1,"Height":9}', b"\4" + b"x" * 5000, b"\4"]
        many = [b'\4{"Width":%d,"Height":24}' % n for n in range(1, 10_001)]
        await peer.send_when_accepted(*(ws.Message(data) for data in [*many, *junk, b"\0done"]))
        await peer.send(ws.CloseConnection(code=1000))
        await peer.closed()

    run(server, client, session=TTY)
    assert found == [(24, 10_000)]


def test_closed_channel_takes_no_more() -> None:
    async def server(served: Served) -> None:
        await served.offered.finish(Status())
        assert served.offered.streams.stdout is not None
        with pytest.raises(BrokenPipeError):
            await served.offered.streams.stdout.write(b"late")

    async def client(peer: Peer) -> None:
        await peer.closed()

    run(server, client)


def test_strings_of_the_python_client_come_as_text() -> None:
    async def client(peer: Peer) -> bytes | str:
        await peer.accepted()
        await peer.message()
        await peer.send(ws.Message("\0grüß dich"))
        return await peer.message()

    assert run(cat, client, offers=["v4.channel.k8s.io"]) == b"\1" + "grüß dich".encode()


def test_stdin_as_base64() -> None:
    async def client(peer: Peer) -> bytes | str:
        await peer.accepted()
        await peer.message()
        await peer.send(ws.Message("0aGVs", message_finished=False), ws.Message("bG8="))
        return await peer.message()

    assert run(cat, client, offers=["base64.channel.k8s.io"]) == "1aGVsbG8="


def test_malformed_base64_is_closed_with_a_code() -> None:
    async def client(peer: Peer) -> int:
        await peer.send_when_accepted(ws.Message("0_-_-"))
        return int((await peer.closed()).code)

    assert run(until_ended, client, offers=["v4.base64.channel.k8s.io"]) == 1007


def test_bytes_that_come_one_by_one_are_counted_with_what_each_costs() -> None:
    async def server(served: Served) -> None:
        stdin: Any = served.offered.streams.stdin
        for _ in range(BUFFER_BYTES // 32):
            stdin.feed(b"xy")
        assert not served.connection.transport.is_reading()
        assert len(await stdin.read()) == BUFFER_BYTES // 16
        assert stdin._waiting_bytes == 0
        assert served.connection.transport.is_reading()

    async def client(peer: Peer) -> None:
        await peer.closed()

    run(server, client)


def test_channel_that_nobody_reads_any_more_holds_nobody_back() -> None:
    async def server(served: Served) -> None:
        stdin: Any = served.offered.streams.stdin
        stdin.feed(bytes(2 * BUFFER_BYTES))
        assert not served.connection.transport.is_reading()
        stdin.drop()
        stdin.feed(b"more")
        assert served.connection.transport.is_reading()
        assert await stdin.read() == b""

    async def client(peer: Peer) -> None:
        await peer.closed()

    run(server, client)
