"""A WebSocket client made of wsproto, over a real socket, and a server that hands each connection to a test."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from criollo.aio.http_server import HttpServer, Reply, Request

LIMIT_S = 60.0
Take = Callable[[Request, asyncio.Transport], Awaitable[Reply | None]]


class Peer:
    """What a client says and hears; every wait has a limit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.wsproto = WSConnection(ConnectionType.CLIENT)
        self._events: list[ws.Event] = []

    @classmethod
    async def connect(cls, port: int, *, offers: Sequence[str] = (), small: bool = False) -> Self:
        """Send the request. `small`: the socket takes little before the server has to wait."""
        sock = socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        peer = cls(*await asyncio.open_connection(sock=sock, limit=1 << 16))
        await peer.send(ws.Request(host="127.0.0.1", target="/exec/token", subprotocols=list(offers)))
        return peer

    async def send(self, *events: ws.Event) -> None:
        """Say something in order."""
        await self.raw(b"".join(self.wsproto.send(event) for event in events))

    async def raw(self, wire: bytes) -> None:
        """Send bytes."""
        async with asyncio.timeout(LIMIT_S):
            self.writer.write(wire)
            await self.writer.drain()

    async def event(self) -> ws.Event | None:
        """The next event; None at the end of the connection."""
        async with asyncio.timeout(LIMIT_S):
            while not self._events:
                wire = await self.reader.read(1 << 18)
                if not wire:
                    return None
                self.wsproto.receive_data(wire)
                self._events += self.wsproto.events()
            return self._events.pop(0)

    async def accepted(self) -> str | None:
        """The subprotocol of the 101."""
        event = await self.event()
        assert isinstance(event, ws.AcceptConnection), event
        return event.subprotocol

    async def send_when_accepted(self, *events: ws.Event, is_greeted: bool = True) -> None:
        """Wait for the 101, and for the first message, then say something."""
        await self.accepted()
        if is_greeted:
            await self.message()
        await self.send(*events)

    async def message(self) -> bytes | str:
        """The next whole message; pings are passed over."""
        begun: list[bytes | str] = []
        while True:
            event = await self.event()
            if isinstance(event, ws.Ping):
                continue
            assert isinstance(event, ws.Message), event
            begun.append(event.data if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                return "".join(map(str, begun)) if isinstance(begun[0], str) else b"".join(map(bytes, begun))  # type: ignore[arg-type]

    async def closed(self) -> ws.CloseConnection:
        """The server's close frame; messages before it are passed over. It is answered."""
        while not isinstance(event := await self.event(), ws.CloseConnection):
            assert event is not None, "the connection ended without a close frame"
        with contextlib.suppress(Exception):
            await self.send(event.response())
        return event

    async def gone(self) -> None:
        """Waits until the server has ended the connection."""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(1 << 18):
                    pass

    async def hang_up(self) -> None:
        """End the connection at once, by a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Leave nothing behind."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def listening(take: Take, *, path: Path | None = None) -> AsyncIterator[int]:
    """A server, on a port of the loopback or at a path, whose connections `take` gets after the request.

    Ends with its connections.
    """
    http = HttpServer({}, upgrades={"/exec/": take})
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:

        class Accept(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transport.pause_reading()
                group.create_task(http.serve(transport))

        if path is None:
            server = await loop.create_server(Accept, "127.0.0.1", 0)
        else:
            server = await loop.create_unix_server(Accept, str(path))
        try:
            yield 0 if path else server.sockets[0].getsockname()[1]
        finally:
            server.close()
