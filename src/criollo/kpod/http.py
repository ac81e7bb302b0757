"""HTTP/1.1 over the daemon's socket: for the few things that CRI has no call for (archives of images, progress of pulls).

One connection per request: they are rare, and a unix socket costs 0.1 ms.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlencode

import h11

from criollo.errors import CriolloError, Unavailable, explain, printable

REPLY_LIMIT_BYTES: Final = 16 << 20
_CHUNK: Final = 64 << 10
_LONGEST_LINE: Final = 1 << 20

Query = Mapping[str, str] | Sequence[tuple[str, str]]


async def get(socket: Path, path: str, query: Query = ()) -> bytes:
    """The body of a 200 answer. Raises as `post`."""
    return await _call(socket, "GET", path, query)


async def post(socket: Path, path: str, query: Query = (), *, body: bytes = b"") -> bytes:
    """The body of the answer; waits as long as the work takes.

    Raises:
        CriolloError: the answer was no 200; the text is the server's.
        Unavailable: nobody listens, the connection ended early, or the answer is no HTTP.
    """
    return await _call(socket, "POST", path, query, body)


async def lines(socket: Path, method: str, path: str, query: Query = (), *, body: bytes = b"") -> AsyncIterator[bytes]:
    """The lines of an answer as they come; leaving the loop closes the connection, which ends the work where it can be.

    Raises:
        CriolloError, Unavailable: as `post`.
    """
    async with _asked(socket, method, path, query, body) as events:
        status, left = 0, b""
        async for event in events:
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                *whole, left = (left + bytes(event.data)).split(b"\n")
                if len(left) > _LONGEST_LINE:
                    raise Unavailable(f"a line of the answer is over {_LONGEST_LINE} bytes")
                if status == 200:
                    for line in whole:
                        yield line
                else:
                    left = b"\n".join([*whole, left])
        if status != 200:
            _refuse(status, path, left)
        if left:
            yield left


async def _call(socket: Path, method: str, path: str, query: Query, body: bytes = b"") -> bytes:
    async with _asked(socket, method, path, query, body) as events:
        status, answer = 0, bytearray()
        async for event in events:
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                answer += event.data
                if len(answer) > REPLY_LIMIT_BYTES:
                    raise Unavailable(f"the answer is over {REPLY_LIMIT_BYTES} bytes")
    if status != 200:
        _refuse(status, path, bytes(answer))
    return bytes(answer)


def _refuse(status: int, path: str, answer: bytes) -> NoReturn:
    text = printable(answer[:4000].decode("utf-8", "replace").strip())
    raise CriolloError(text or f"{path} was answered with HTTP status {status}")


@contextlib.asynccontextmanager
async def _asked(socket: Path, method: str, path: str, query: Query, body: bytes) -> AsyncIterator[AsyncIterator[h11.Event]]:
    """The events of an answer, up to its end."""
    target = f"{path}?{urlencode(query)}" if query else path
    connection = h11.Connection(h11.CLIENT)
    with explain(f"connect to {socket}"):
        reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        headers = [("host", "localhost"), ("content-length", str(len(body)))]
        for event in (h11.Request(method=method, target=target, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        yield _events(reader, connection)
    except (h11.RemoteProtocolError, OSError) as error:
        raise Unavailable(f"cannot ask {socket} for {path}: the connection ended ({error}); is the daemon running?") from error
    finally:
        writer.close()


async def _events(reader: asyncio.StreamReader, connection: h11.Connection) -> AsyncIterator[h11.Event]:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.ConnectionClosed):
            raise Unavailable("the connection ended before the answer")
        elif isinstance(event, h11.EndOfMessage):
            return
        elif isinstance(event, h11.Event):
            yield event
