"""The server's side of WebSocket sessions: exec, attach, both kinds of port-forward.

    handshake = negotiate(request, session)                    # Invalid, Unsupported: nothing was sent, answer with the error
    served = await serve_channels(transport, handshake, session)        # exec and attach
    forwards = await serve_forwards(transport, handshake, session)      # port-forward, the old way: a pair for each port
    tunnel = serve_tunnel(transport, handshake, SpdyConnection(…))      # where handshake.is_tunnel

Each sends the 101. A `connection` says by `ended` that the peer cannot be reached any more, and is to be closed on every path.
Reading of the transport may be paused; nothing of the client may have been read but its request.
"""

import asyncio
from typing import NamedTuple

from criollo.aio.http_server import Request
from criollo.aio.streams import Streams
from criollo.errors import Invalid
from criollo.model.session import AttachSession, ExecSession, ForwardSession, Session
from criollo.streaming.channels import ChannelReader, Channels, ChannelWriter
from criollo.streaming.frames import FrameConnection
from criollo.streaming.session import Offered, Pair, Status, encode
from criollo.streaming.tunnel import Tunnel
from criollo.wire.channels import (
    ERROR,
    EXEC,
    EXEC_CHANNELS,
    FORWARD,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    TUNNEL,
    choose,
    max_ports,
    subprotocol,
)
from criollo.wire.websocket import handshake_key, subprotocols, switching_head


class Handshake(NamedTuple):
    """What was agreed upon."""

    key: str
    subprotocol: str

    @property
    def is_tunnel(self) -> bool:
        return self.subprotocol in TUNNEL


class Served(NamedTuple):
    """An exec's or attach's streams, and what they travel on."""

    offered: Offered
    connection: FrameConnection


class Forwards(NamedTuple):
    """Connections into a pod, one for each port, and what they travel on."""

    pairs: tuple[Pair, ...]
    connection: FrameConnection


def negotiate(request: Request, session: Session) -> Handshake:
    """What to speak with a client that asked for a WebSocket.

    Raises:
        Invalid: the request is no handshake, or has no subprotocol of ours for this session.
        Unsupported: another version of WebSocket.
    """
    key = handshake_key(request.method, request.headers)
    known = TUNNEL + FORWARD if isinstance(session, ForwardSession) else EXEC
    name = choose(subprotocols(request.headers), known)
    if isinstance(session, ForwardSession) and name not in TUNNEL:
        most = max_ports(subprotocol(name))
        if not 0 < len(session.ports) <= most:
            raise Invalid(
                "ports to forward over WebSocket channels", len(session.ports), f"1-{most}, or subprotocol {TUNNEL[0]}"
            )
    return Handshake(key, name)


async def serve_channels(transport: asyncio.Transport, handshake: Handshake, session: ExecSession | AttachSession) -> Served:
    """The streams that the session was opened with; its client has nothing to open itself."""
    has_stderr = session.stderr and not session.tty
    incoming = [STDIN] * session.stdin + [RESIZE] * session.tty
    channels = Channels(subprotocol(handshake.subprotocol), count=EXEC_CHANNELS, incoming=incoming)
    stdout, stderr, error = (channels.writer(channel) for channel in (STDOUT, STDERR, ERROR))

    async def finish(status: Status) -> None:
        if document := encode(status, channels.kind.version):
            await error.write(document)
        for writer in (stdout, stderr, error):
            await writer.close()

    streams = Streams(
        stdin=channels.reader(STDIN) if session.stdin else None,
        stdout=stdout if session.stdout else None,
        stderr=stderr if has_stderr else None,
        sizes=channels.sizes if session.tty else None,
    )
    _switch(transport, handshake, channels.connection)
    await (stdout if session.stdout else stderr if has_stderr else error).announce()
    return Served(Offered(streams, finish), channels.connection)


async def serve_forwards(transport: asyncio.Transport, handshake: Handshake, session: ForwardSession) -> Forwards:
    """A pair for each port of the session, open from the start."""
    places = range(len(session.ports))
    channels = Channels(subprotocol(handshake.subprotocol), count=2 * len(places), incoming=[2 * n for n in places])
    _switch(transport, handshake, channels.connection)
    pairs = []
    for n, port in enumerate(session.ports):
        data, error = ForwardChannel(channels.reader(2 * n), channels.writer(2 * n)), channels.writer(2 * n + 1)
        for writer in (data, error):
            await writer.write(port.to_bytes(2, "little"))
        pairs.append(Pair(port, data, error))
    return Forwards(tuple(pairs), channels.connection)


def serve_tunnel(transport: asyncio.Transport, handshake: Handshake, protocol: asyncio.BaseProtocol) -> Tunnel:
    """A transport for `protocol`, which is told of its connection here."""
    tunnel = Tunnel(protocol)
    transport.write(switching_head(handshake.key, handshake.subprotocol))
    tunnel.start(transport)
    return tunnel


class ForwardChannel:
    """Both directions of a port. There is no word for the end of one direction: our end is the end of both."""

    def __init__(self, reader: ChannelReader, writer: ChannelWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read()

    async def write(self, data: bytes) -> None:
        await self._writer.write(data)

    async def close(self) -> None:
        await self._writer.close()
        self._reader.drop()

    async def reset(self) -> None:
        await self.close()


def _switch(transport: asyncio.Transport, handshake: Handshake, connection: FrameConnection) -> None:
    transport.write(switching_head(handshake.key, handshake.subprotocol))
    connection.start(transport)
