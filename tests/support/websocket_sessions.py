"""Both sides of a WebSocket session: our server's for a test to play, wsproto's as the client."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from support.websocket_peer import LIMIT_S, Peer, listening
from wsproto import events as ws

from criollo.aio.http_server import Reply, Request
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import AttachSession, ExecSession, ForwardSession, Session
from criollo.streaming.session import Status
from criollo.streaming.websocket import Forwards, Served, negotiate, serve_channels, serve_forwards

V5 = "v5.channel.k8s.io"
ALL = ExecSession(container_id=ContainerId("c" * 64), argv=("cat",), stdin=True, stdout=True, stderr=True)
TTY = ExecSession(container_id=ContainerId("c" * 64), argv=("sh",), stdin=True, stdout=True, tty=True)

Client = Callable[[Peer], Awaitable[Any]]
Server = Callable[[Served], Awaitable[Any]]


def run(server: Server, client: Client, *, session: Session = ALL, offers: Sequence[str] = (V5,), small: bool = False) -> Any:
    """Both sides of one exec; what the client returns. The server's side ends with a closed connection."""

    async def take(request: Request, transport: asyncio.Transport) -> Reply | None:
        assert isinstance(session, ExecSession | AttachSession)
        served = await serve_channels(transport, negotiate(request, session), session)
        try:
            await server(served)
        finally:
            await served.connection.close()
        return None

    return both(take, client, offers=offers, small=small)


def forward(
    server: Callable[[Forwards], Awaitable[Any]], client: Client, *, ports: tuple[int, ...], offers: Sequence[str] = ()
) -> Any:
    """Both sides of a port-forward."""

    async def take(request: Request, transport: asyncio.Transport) -> Reply | None:
        session = ForwardSession(pod_id=PodId("p" * 64), ports=ports)
        forwards = await serve_forwards(transport, negotiate(request, session), session)
        try:
            await server(forwards)
        finally:
            await forwards.connection.close()
        return None

    return both(take, client, offers=offers)


def both(take: Any, client: Client, *, offers: Sequence[str], small: bool = False) -> Any:
    """Run a server for one client."""

    async def main() -> Any:
        async with asyncio.timeout(2 * LIMIT_S), listening(take) as port:
            peer = await Peer.connect(port, offers=offers, small=small)
            try:
                return await client(peer)
            finally:
                await peer.close()

    return asyncio.run(main())


async def until_ended(served: Served | Forwards) -> None:
    """A server's side that does nothing."""
    await served.connection.ended.wait()


async def read_all(served: Served) -> bytes:
    """Everything of stdin."""
    stdin, found = served.offered.streams.stdin, bytearray()
    assert stdin is not None
    while data := await stdin.read():
        found += data
    return bytes(found)


async def cat(served: Served) -> None:
    """What the process `cat` would do, and the session around it."""
    stdin, stdout = served.offered.streams.stdin, served.offered.streams.stdout
    assert stdin is not None
    assert stdout is not None
    while data := await stdin.read():
        await stdout.write(data)
    await served.offered.finish(Status())


async def over_at_once(served: Served) -> None:
    """A session that is over at once."""


def then_close(client: Client) -> Client:
    """The same client, which says goodbye."""

    async def closing(peer: Peer) -> Any:
        result = await client(peer)
        await peer.send(ws.CloseConnection(code=1000))
        await peer.closed()
        return result

    return closing
