"""A client of the streaming port: what client-go does, with our own SPDY connection or wsproto."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream

EXEC_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
FORWARD_PROTOCOL = "portforward.k8s.io"
LIMIT_S = 60


class Answer(NamedTuple):
    """A server's answer to a request; `transport` is paused after a 101 and closed otherwise."""

    status: int
    headers: dict[str, str]
    body: bytes
    transport: asyncio.Transport


class Outcome(NamedTuple):
    """What an exec or attach gave."""

    stdout: bytes
    stderr: bytes
    status: Any  # of the error stream, JSON or text


async def ask(
    url: str,
    *headers: tuple[str, str],
    method: str = "POST",
    unix: str = "",
    context: ssl.SSLContext | None = None,
    behind: bytes = b"",
) -> Answer:
    """Send a request to the place of `url`; `behind` follows it at once."""
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    if unix:
        transport, head = await loop.create_unix_connection(_Head, unix)
    else:
        name = place.hostname if context is not None else None
        transport, head = await loop.create_connection(_Head, place.hostname, place.port, ssl=context, server_hostname=name)
    lines = [f"{method} {place.path} HTTP/1.1", "content-length: 0", *(f"{name}: {value}" for name, value in headers)]
    if not any(name == "host" for name, _ in headers):
        lines.insert(1, f"host: {place.netloc}")
    transport.write(("\r\n".join(lines) + "\r\n\r\n").encode() + behind)
    async with asyncio.timeout(LIMIT_S):
        return await head.answer


def spdy_headers(*protocols: str) -> list[tuple[str, str]]:
    return [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        *(("x-stream-protocol-version", name) for name in protocols or EXEC_PROTOCOLS),
    ]


@contextlib.asynccontextmanager
async def spdy(url: str, *protocols: str, **options: Any) -> AsyncIterator[SpdyConnection]:
    """A SPDY connection with a session, closed at the end of the block."""
    answer = await ask(url, *spdy_headers(*protocols), **options)
    assert answer.status == 101, answer
    connection = SpdyConnection(is_client=True)
    connection.start(answer.transport, answer.body)
    try:
        yield connection
    finally:
        await connection.close()


async def process_streams(connection: SpdyConnection, *kinds: str) -> dict[str, SpdyStream]:
    """Open an exec's or attach's streams, one after the other, as client-go does."""
    return {kind: await connection.open({"streamtype": kind}) for kind in kinds}


async def run(url: str, *, stdin: bytes | None = None, tty: bool = False, **options: Any) -> Outcome:
    """Open a session, give it its input, and take what it says until its end."""
    async with spdy(url, **options) as connection:
        kinds = ["error", *(["stdin"] if stdin is not None else []), "stdout", *(["resize"] if tty else ["stderr"])]
        streams = await process_streams(connection, *kinds)
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            if stdin is not None:
                group.create_task(_feed(streams["stdin"], stdin))
            taken = {kind: group.create_task(drink(streams[kind])) for kind in kinds if kind not in ("stdin", "resize")}
        status = taken["error"].result()
        return Outcome(
            taken["stdout"].result(),
            taken["stderr"].result() if "stderr" in taken else b"",
            json.loads(status) if status[:1] == b"{" else status.decode(),
        )


async def drink(stream: SpdyStream) -> bytes:
    """Everything until the end."""
    taken = bytearray()
    while data := await stream.read():
        taken += data
    return bytes(taken)


async def forwarded(connection: SpdyConnection, port: int, request_id: int = 0) -> tuple[SpdyStream, SpdyStream]:
    """The data and error streams of a connection to a port."""
    headers = {"port": str(port), "requestid": str(request_id)}
    error = await connection.open({"streamtype": "error", **headers})
    return await connection.open({"streamtype": "data", **headers}), error


async def _feed(stream: SpdyStream, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # a command may end before its input
        await stream.write(data)
        await stream.close()


class _Head(asyncio.Protocol):
    """Reads an answer: its head, and its body where it is no 101."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._transport: asyncio.Transport
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._octets += data
        head, found, body = bytes(self._octets).partition(b"\r\n\r\n")
        if not found or self.answer.done():
            return
        first, *lines = head.decode().split("\r\n")
        status = int(first.split()[1])
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if status == 101:
            self._transport.pause_reading()
        elif len(body) < int(headers.get("content-length", 0)):
            return
        else:
            self._transport.close()
        self.answer.set_result(Answer(status, headers, body, self._transport))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError(f"no answer: {exc or bytes(self._octets)}"))
