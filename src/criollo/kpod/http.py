"""HTTP/1.1 over the daemon's socket: for the few things that CRI has no call for (archives of images, progress of pulls).

One connection per request: they are rare, and a unix socket costs 0.1 ms.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import h11

from criollo.errors import CriolloError, Unavailable, explain, printable

REPLY_LIMIT_BYTES: Final = 16 << 20
_CHUNK: Final = 64 << 10

Query = Mapping[str, str] | Sequence[tuple[str, str]]


async def get(socket: Path, path: str, query: Query = ()) -> bytes:
    """The body of a 200 answer. Raises as `post`."""
    return await _call(socket, "GET", path, query)


async def post(socket: Path, path: str, query: Query = ()) -> bytes:
    """The body of the answer; waits as long as the work takes.

    Raises:
        CriolloError: the answer was no 200; the text is the server's.
        Unavailable: nobody listens, the connection ended early, or the answer is no HTTP.
    """
    return await _call(socket, "POST", path, query)


async def _call(socket: Path, method: str, path: str, query: Query) -> bytes:
    target = f"{path}?{urlencode(query)}" if query else path
    connection = h11.Connection(h11.CLIENT)
    with explain(f"connect to {socket}"):
        reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        for event in (
            h11.Request(method=method, target=target, headers=[("host", "localhost"), ("content-length", "0")]),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(event) or b"")
        status, body = await _read(reader, connection)
    except (h11.RemoteProtocolError, OSError) as error:
        raise Unavailable(f"cannot ask {socket} for {path}: the connection ended ({error}); is the daemon running?") from error
    finally:
        writer.close()
    if status != 200:
        text = printable(body[:4000].decode("utf-8", "replace").strip())
        raise CriolloError(text or f"{path} was answered with HTTP status {status}")
    return bytes(body)


async def _read(reader: asyncio.StreamReader, connection: h11.Connection) -> tuple[int, bytearray]:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > REPLY_LIMIT_BYTES:
                raise Unavailable(f"the answer is over {REPLY_LIMIT_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, body
        elif isinstance(event, h11.ConnectionClosed):
            raise Unavailable("the connection ended before the answer")
