"""A WebSocket on a socket: bounds, control frames, ends of every kind."""

import asyncio
import socket
import struct

import pytest
from support.websocket_peer import Peer
from support.websocket_sessions import both, over_at_once, read_all, run, then_close, until_ended
from wsproto import events as ws

from criollo.aio.http_server import Reply, Request
from criollo.streaming import frames
from criollo.streaming.session import Status
from criollo.streaming.websocket import Served
from criollo.wire.websocket import Frames, Part, switching_head


def take_little(served: Served) -> None:
    """Make the server's socket take little before it would block."""
    served.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@pytest.mark.parametrize("way", ["reset", "end", "close 1011"])
def test_client_that_vanishes_ends_what_waits_for_it(way: str) -> None:
    errors: list[Exception] = []

    async def server(served: Served) -> None:
        for work in (read_all(served), write_on(served)):
            try:
                await work
            except ConnectionError as error:
                errors.append(error)

    async def write_on(served: Served) -> None:
        assert served.offered.streams.stdout is not None
        while True:
            await served.offered.streams.stdout.write(b"x" * 1000)

    async def client(peer: Peer) -> None:
        await peer.accepted()
        if way == "reset":
            await peer.hang_up()
        elif way == "end":
            peer.writer.write_eof()
        else:
            await peer.send(ws.CloseConnection(code=1011, reason="bug"))
        await peer.gone()

    run(server, client)
    assert len(errors) == 2


def test_writer_that_waits_is_woken_when_the_client_vanishes() -> None:
    async def server(served: Served) -> None:
        assert served.offered.streams.stdout is not None
        with pytest.raises(ConnectionError):
            await served.offered.streams.stdout.write(bytes(100 << 20))

    async def client(peer: Peer) -> None:
        await peer.accepted()
        await peer.message()
        await peer.hang_up()

    run(server, client, small=True)


def test_slow_client_holds_back_the_writer() -> None:
    sizes: list[int] = []
    total = 16 << 20

    async def server(served: Served) -> None:
        stdout = served.offered.streams.stdout
        assert stdout is not None
        for _ in range(total >> 18):
            await stdout.write(bytes(1 << 18))
            sizes.append(served.connection.transport.get_write_buffer_size())

    async def client(peer: Peer) -> int:
        await peer.accepted()
        heard = 0
        while heard < total:
            heard += len(await peer.message()) - 1
        return heard

    assert run(server, client, small=True) == total
    assert max(sizes) <= 1 << 19


def test_pings_are_answered() -> None:
    async def client(peer: Peer) -> ws.Event | None:
        await peer.accepted()
        await peer.message()
        await peer.send(ws.Ping(b"are you there"))
        return await peer.event()

    assert run(until_ended, then_close(client)) == ws.Pong(b"are you there")


def test_flood_of_pings_by_a_client_that_does_not_read_takes_no_memory() -> None:
    most: list[int] = []

    async def server(served: Served) -> None:
        take_little(served)
        assert served.offered.streams.stdin is not None
        while (await served.offered.streams.stdin.read())[-1:] != b"!":
            pass
        most.append(served.connection.transport.get_write_buffer_size())

    async def client(peer: Peer) -> None:
        await peer.accepted()
        flood = b"".join(peer.wsproto.send(ws.Ping(b"x" * 125)) for _ in range(1000))
        for _ in range(20):
            await peer.raw(flood)
        await peer.send(ws.Message(b"\0!"))
        await peer.closed()

    run(server, client, small=True)
    assert most[0] <= 1 << 19


def test_flood_of_tiny_messages_lets_others_have_their_turns() -> None:
    most, taken = 0, 0

    class Counter:
        """How many parts come in one turn of the loop."""

        def __init__(self) -> None:
            self.parts = 0

        def received(self, part: Part) -> None:
            nonlocal most
            if not self.parts:
                asyncio.get_running_loop().call_soon(self.next_turn)
            self.parts += 1
            most = max(most, self.parts)

        def next_turn(self) -> None:
            nonlocal taken
            taken, self.parts = taken + self.parts, 0

        def ended(self, failure: str) -> None: ...

        def writable(self, *, now: bool) -> None: ...

    async def take(request: Request, transport: asyncio.Transport) -> Reply | None:
        transport.write(switching_head(request.headers["sec-websocket-key"], ""))
        connection = frames.FrameConnection(Frames(), Counter())
        connection.start(transport)
        await connection.ended.wait()
        await connection.close()
        return None

    async def client(peer: Peer) -> None:
        await peer.accepted()
        await peer.raw(b"\x82\x81\0\0\0\0a" * 20_000)
        await peer.send(ws.CloseConnection(code=1000))
        await peer.closed()

    both(take, client, offers=())
    assert taken == 20_000
    assert most <= 2 * frames._STEPS


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x82\x02\0a", 1002),
        (b"\xc2\x82\0\0\0\0\0a", 1002),
        (b"\x82\xff" + struct.pack("!Q", 1 << 63) + b"\0\0\0\0", 1002),
        (b"\x80\x81\0\0\0\0a", 1002),
        (b"\x82\x82\0\0\0\0\xff\x09", 1002),
        (b"\x81\x82\0\0\0\0\0\xff", 1007),
    ],
)
def test_broken_protocol_is_closed_with_a_code(wire: bytes, code: int) -> None:
    async def server(served: Served) -> None:
        with pytest.raises(ConnectionResetError, match="was closed: "):
            await read_all(served)

    async def client(peer: Peer) -> ws.CloseConnection:
        await peer.accepted()
        await peer.raw(wire)
        return await peer.closed()

    closed = run(server, client)
    assert closed.code == code
    assert closed.reason


def test_end_takes_the_last_output_along_though_the_client_still_sends() -> None:
    output = bytes(4 << 20)

    async def server(served: Served) -> None:
        stdout = served.offered.streams.stdout
        assert stdout is not None
        assert served.offered.streams.stdin is not None
        await served.offered.streams.stdin.read()
        for start in range(0, len(output), 1 << 18):
            await stdout.write(output[start : start + (1 << 18)])
        await served.offered.finish(Status())

    async def client(peer: Peer) -> tuple[int, int]:
        await peer.accepted()
        heard = 0
        async with asyncio.TaskGroup() as group:
            group.create_task(peer.send(*[ws.Message(b"\0" + bytes(65536)) for _ in range(200)]))
            while not isinstance(event := await peer.event(), ws.CloseConnection):
                assert isinstance(event, ws.Message)
                heard += len(event.data)
        await peer.send(event.response())
        return heard, event.code

    heard, code = run(server, client)
    assert heard > len(output)
    assert code == 1000


def test_peer_that_does_not_say_goodbye_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_FAREWELL_S", 0.01)

    async def client(peer: Peer) -> None:
        await peer.accepted()
        await peer.gone()

    run(over_at_once, client)


def test_peer_that_never_reads_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_STALL_S", 0.01)
    done = asyncio.Event()

    async def server(served: Served) -> None:
        take_little(served)
        for _ in range(100):
            served.connection.write(bytes(1 << 18))
        await served.connection.close()
        done.set()

    async def client(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await done.wait()

    run(server, client, small=True)


def test_held_connection_finds_out_that_its_client_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_QUIET_S", 0.01)

    async def server(served: Served) -> None:
        served.connection.hold("test")
        await served.connection.ended.wait()

    async def client(peer: Peer) -> None:
        await peer.accepted()
        await peer.message()
        await peer.hang_up()

    run(server, client)


def test_silent_client_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_QUIET_S", 0.01)

    async def client(peer: Peer) -> ws.Event | None:
        await peer.accepted()
        await peer.message()
        return await peer.event()

    assert run(until_ended, then_close(client)) == ws.Ping(b"")


def test_close_may_be_repeated_and_nothing_is_sent_after_it() -> None:
    async def server(served: Served) -> None:
        await served.connection.close()
        await served.connection.close()
        assert served.offered.streams.stdout is not None
        with pytest.raises(ConnectionError):
            await served.offered.streams.stdout.write(b"late")

    async def client(peer: Peer) -> ws.Event | None:
        await peer.closed()
        return await peer.event()

    assert run(server, client) is None
