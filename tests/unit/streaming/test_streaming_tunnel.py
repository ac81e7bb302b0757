"""A pipe of bytes inside a WebSocket, with wsproto as the client."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.websocket_peer import LIMIT_S, Peer, listening
from wsproto import events as ws

from criollo.aio.http_server import Reply, Request
from criollo.model.ids import PodId
from criollo.model.session import ForwardSession
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.tunnel import Tunnel
from criollo.streaming.websocket import negotiate, serve_tunnel

PROTOCOL = "SPDY/3.1+portforward.k8s.io"


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.told: list[str] = []
        self.news = asyncio.Event()
        self.lost: Exception | None = None
        self.tunnel: Tunnel | None = None

    def tell(self, what: str) -> None:
        self.told.append(what)
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition, looking whenever something was told."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Tunnel)
        self.tunnel = transport
        transport.write(b"settings")
        self.tell("made")

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.tell("data")

    def pause_writing(self) -> None:
        self.tell("pause")

    def resume_writing(self) -> None:
        self.tell("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.tell("lost")


class Buffered(asyncio.BufferedProtocol):
    """Gives a buffer that is too small for a message."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.buffer = bytearray(3)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self.buffer[:nbytes]


def run(
    server: Callable[[Tunnel, Any], Awaitable[Any]],
    client: Callable[[Peer], Awaitable[Any]],
    *,
    make: Callable[[], Any] = Recorder,
    small: bool = False,
) -> Any:
    """Both sides of one tunnel; what the client returns."""

    async def take(request: Request, transport: asyncio.Transport) -> Reply | None:
        protocol = make()
        session = ForwardSession(pod_id=PodId("p" * 64))
        tunnel = serve_tunnel(transport, negotiate(request, session), protocol)
        try:
            await server(tunnel, protocol)
        finally:
            await tunnel.connection.close()
        return None

    async def main() -> Any:
        async with asyncio.timeout(2 * LIMIT_S), listening(take) as port:
            peer = await Peer.connect(port, offers=[PROTOCOL], small=small)
            try:
                return await client(peer)
            finally:
                await peer.close()

    return asyncio.run(main())


def test_bytes_both_ways_whatever_the_messages() -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        await protocol.until(lambda: protocol.heard == b"abcdef")
        tunnel.writelines([b"gh", bytearray(b"ij"), memoryview(b"kl")])
        tunnel.write(b"")
        tunnel.close()
        await protocol.until(lambda: "lost" in protocol.told)
        assert protocol.lost is None
        assert tunnel.is_closing()

    async def client(peer: Peer) -> tuple[Any, ...]:
        chosen = await peer.accepted()
        await peer.send(ws.Message(b"ab", message_finished=False), ws.Message(b"cd"), ws.Message(b""), ws.Message(b"ef"))
        return chosen, await peer.message(), await peer.message(), (await peer.closed()).code

    assert run(server, client) == (PROTOCOL, b"settings", b"ghijkl", 1000)


def test_buffered_protocol_is_filled_piece_by_piece() -> None:
    heard: list[bytes] = []

    async def server(tunnel: Tunnel, protocol: Buffered) -> None:
        await tunnel.connection.ended.wait()
        heard.append(bytes(protocol.heard))

    async def client(peer: Peer) -> None:
        await peer.send_when_accepted(ws.Message(b"0123456789"), ws.CloseConnection(code=1000), is_greeted=False)
        await peer.closed()

    run(server, client, make=Buffered)
    assert heard == [b"0123456789"]


def test_text_is_refused() -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        await protocol.until(lambda: "lost" in protocol.told)
        assert isinstance(protocol.lost, ConnectionResetError)
        assert protocol.heard == b"a"

    async def client(peer: Peer) -> ws.CloseConnection:
        await peer.send_when_accepted(ws.Message(b"a"), ws.Message("b"), ws.Message(b"c"))
        return await peer.closed()

    assert run(server, client).code == 1003


@pytest.mark.parametrize("wire", [b"\x82\x01a", b"\x82\xff" + struct.pack("!Q", 1 << 63), b"\x8f\x80\0\0\0\0"])
def test_broken_frames_end_the_tunnel(wire: bytes) -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        await protocol.until(lambda: "lost" in protocol.told)
        assert isinstance(protocol.lost, ConnectionResetError)

    async def client(peer: Peer) -> int:
        await peer.accepted()
        await peer.raw(wire)
        return int((await peer.closed()).code)

    assert run(server, client) == 1002


def test_client_that_vanishes_is_a_lost_connection() -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        await protocol.until(lambda: "lost" in protocol.told)
        tunnel.write(b"late")
        tunnel.close()
        tunnel.abort()
        assert protocol.told.count("lost") == 1

    async def client(peer: Peer) -> None:
        await peer.accepted()
        await peer.message()
        await peer.hang_up()

    run(server, client)


def test_end_of_writing_is_the_end_of_both_directions() -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        assert tunnel.can_write_eof()
        tunnel.write(b"last")
        tunnel.write_eof()
        await protocol.until(lambda: "lost" in protocol.told)
        assert protocol.lost is None

    async def client(peer: Peer) -> tuple[Any, ...]:
        await peer.accepted()
        return await peer.message(), await peer.message(), (await peer.closed()).code

    assert run(server, client) == (b"settings", b"last", 1000)


def test_abort_ends_at_once() -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        tunnel.abort()
        await protocol.until(lambda: "lost" in protocol.told)

    async def client(peer: Peer) -> None:
        await peer.gone()

    run(server, client)


def test_writing_is_paused_while_the_client_does_not_read_and_resumed() -> None:
    may_read = asyncio.Event()
    total = 20 << 20

    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        for _ in range(total >> 18):
            tunnel.write(bytes(1 << 18))
        assert protocol.told[-1] == "pause"
        assert tunnel.get_write_buffer_size() > 0
        may_read.set()
        await protocol.until(lambda: "resume" in protocol.told)

    async def client(peer: Peer) -> int:
        await peer.accepted()
        await may_read.wait()
        heard = -len(b"settings")
        while heard < total:
            heard += len(await peer.message())
        await peer.closed()
        return heard

    assert run(server, client, small=True) == total


def test_paused_reading_holds_back_the_client() -> None:
    total = 16 << 20

    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        await protocol.until(lambda: bool(protocol.heard))
        tunnel.pause_reading()
        assert not tunnel.is_reading()
        before = len(protocol.heard)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(protocol.heard) == before
        tunnel.resume_reading()
        assert tunnel.is_reading()
        await protocol.until(lambda: len(protocol.heard) == total)

    async def client(peer: Peer) -> None:
        await peer.accepted()
        await peer.send(*[ws.Message(bytes(1 << 16)) for _ in range(total >> 16)])
        await peer.closed()

    run(server, client)


def test_tunnel_answers_as_its_socket_does() -> None:
    async def server(tunnel: Tunnel, protocol: Recorder) -> None:
        assert tunnel.get_extra_info("peername")[0] == "127.0.0.1"
        assert tunnel.get_extra_info("nothing", 7) == 7
        tunnel.set_write_buffer_limits(high=1000, low=10)
        assert tunnel.get_write_buffer_limits() == (10, 1000)
        other = Recorder()
        tunnel.set_protocol(other)
        assert tunnel.get_protocol() is other

    async def client(peer: Peer) -> None:
        await peer.closed()

    run(server, client)


SPDY_JUNK = [
    b"\x00" * 64,
    b"\xff" * 64,
    b"\x80\x03\x00\x01\x01\xff\xff\xff",
    b"\x80\x03\x00\x01\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
]


@pytest.mark.parametrize("junk", SPDY_JUNK)
def test_broken_spdy_inside_ends_the_tunnel_in_order(junk: bytes) -> None:
    async def server(tunnel: Tunnel, connection: SpdyConnection) -> None:
        assert await connection.accept() is None

    async def client(peer: Peer) -> int:
        await peer.accepted()
        await peer.send(*[ws.Message(junk[n : n + 7]) for n in range(0, len(junk), 7)])
        return int((await peer.closed()).code)

    assert run(server, client, make=SpdyConnection) == 1000
