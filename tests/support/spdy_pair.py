"""A client and a server of SPDY on a pair of sockets in one loop, or a server with a peer that writes raw bytes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from criollo.streaming.spdy import SpdyConnection


@contextlib.asynccontextmanager
async def both(*, max_streams: int = 10, has_flow: bool = True) -> AsyncIterator[tuple[SpdyConnection, SpdyConnection]]:
    """A client and a server. Without flow control the client behaves as those of Kubernetes do."""
    near, far = socket.socketpair()
    client = SpdyConnection(is_client=True, max_streams=0) if has_flow else flowless()
    server = SpdyConnection(max_streams=max_streams)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: client, sock=near)
    await loop.create_connection(lambda: server, sock=far)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()
        await client.ended.wait()
        await server.ended.wait()


def flowless() -> SpdyConnection:
    """A client that neither sends nor heeds windows."""
    client = SpdyConnection(is_client=True, max_streams=0)
    client.session.take_output()
    client.session._turn_flow_on = lambda: None  # type: ignore[method-assign]
    client.session.has_flow = False
    return client


@contextlib.asynccontextmanager
async def raw(*, max_streams: int = 10) -> AsyncIterator[tuple[socket.socket, SpdyConnection]]:
    """A server, and a non-blocking socket to it."""
    near, far = socket.socketpair()
    near.setblocking(False)
    server = SpdyConnection(max_streams=max_streams)
    await asyncio.get_running_loop().create_connection(lambda: server, sock=far)
    try:
        yield near, server
    finally:
        near.close()
        server.abort()
        await server.ended.wait()
