"""A CRI client: for kpod and for tests; and calls of any gRPC server, which the exporter of traces makes.

    async with connect(path) as client:
        reply = await client.runtime("ListContainers", api_pb2.ListContainersRequest())

A status that is not OK comes back as the error of ours it was made from.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from criollo.cri import grpc
from criollo.cri.connection import Connection
from criollo.cri.errors import Code, Refused, error_of
from criollo.cri.pb import api_pb2
from criollo.errors import CriolloError, TimedOut, Unavailable, explain
from criollo.wire.http2_events import Body, Head

if TYPE_CHECKING:
    import ssl

RUNTIME: Final = "runtime.v1.RuntimeService"
IMAGE: Final = "runtime.v1.ImageService"
_GOODBYE_S: Final = 0.5  # for a peer to end its side of TLS: gRPC's servers never do
_STRANGERS_BYTES: Final = 1 << 20  # of an answer of somebody else's server


@asynccontextmanager
async def connect(path: Path, *, limit_s: float = 5) -> AsyncIterator["Client"]:
    """A client of the daemon that listens on the unix socket `path`.

    Raises Unavailable when nobody answers within `limit_s`.
    """
    loop = asyncio.get_running_loop()
    side = _Calling()
    try:
        with explain(f"connect to {path}"):
            async with asyncio.timeout(limit_s):
                await loop.create_unix_connection(lambda: side.connection, str(path))
    except TimeoutError as error:
        raise Unavailable(f"cannot connect to {path}: no answer in {limit_s:g} s; is the daemon stuck?") from error
    except CriolloError as error:
        raise Unavailable(f"{error}; is the daemon running?") from error
    async with _closing(side) as client:
        yield client


@asynccontextmanager
async def connect_socket(sock: socket.socket) -> AsyncIterator["Client"]:
    """A client over a connected stream socket, which is ours from now on."""
    side = _Calling()
    await asyncio.get_running_loop().create_unix_connection(lambda: side.connection, sock=sock)
    async with _closing(side) as client:
        yield client


Caller = Callable[[str, bytes, float], Awaitable[bytes]]
"""Calls a method by its path with an encoded message; at most so many seconds; gives the encoded answer."""


@asynccontextmanager
async def connect_to(host: str, port: int, *, tls: "ssl.SSLContext | None" = None, limit_s: float = 5) -> AsyncIterator[Caller]:
    """Calls of any gRPC server on a TCP port; without `tls` in the clear.

    Raises Unavailable when nobody answers within `limit_s`; the calls as those of `Client`.
    """
    side = _Calling(limit_bytes=_STRANGERS_BYTES)
    try:
        with explain(f"connect to {host}, port {port}"):
            async with asyncio.timeout(limit_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: side.connection, host, port, ssl=tls, ssl_shutdown_timeout=_GOODBYE_S if tls else None
                )
    except TimeoutError as error:
        raise Unavailable(f"cannot connect to {host}, port {port}: no answer in {limit_s:g} s") from error

    async def call(path: str, message: bytes, timeout_s: float) -> bytes:
        answer = b""
        try:
            async with asyncio.timeout(timeout_s):
                async for part in side.call(path, message, timeout_s):
                    answer = part
        except TimeoutError as error:
            raise TimedOut(f"{path} of {host}, port {port}, was not answered in {timeout_s:g} s") from error
        return answer

    async with _closing(side):
        yield call


class Client:
    """Calls over one connection; any number at once."""

    def __init__(self, side: "_Calling") -> None:
        self._side = side

    async def runtime(self, method: str, request: Message, *, timeout_s: float | None = None) -> Any:
        """Call a method of RuntimeService; give its reply. Raises what the server meant, TimedOut, Unavailable."""
        return await self._one(RUNTIME, method, request, timeout_s)

    async def image(self, method: str, request: Message, *, timeout_s: float | None = None) -> Any:
        """Call a method of ImageService; as `runtime`."""
        return await self._one(IMAGE, method, request, timeout_s)

    async def stream(self, service: str, method: str, request: Message) -> AsyncGenerator[Any, None]:
        """The replies of a streaming method of `service` (RUNTIME or IMAGE) as they come."""
        reply_type = _reply_type(service, method)
        async with aclosing(self._side.call(f"/{service}/{method}", request.SerializeToString(), None)) as messages:
            async for message in messages:
                yield reply_type.FromString(message)

    async def _one(self, service: str, method: str, request: Message, timeout_s: float | None) -> Any:
        reply_type = _reply_type(service, method)
        reply: Any = None
        async for message in self._side.call(f"/{service}/{method}", request.SerializeToString(), timeout_s):
            reply = reply_type.FromString(message)
        return reply


class _Answer:
    """What came back on one stream so far."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.code: int | None = None
        self.text = ""
        self.changed = asyncio.Event()
        self.is_over = False

    def end(self) -> None:
        self.is_over = True
        self.changed.set()

    def messages(self) -> list[bytes]:
        found = []
        while (length := grpc.announced(self.body)) is not None and len(self.body) >= grpc.PREFIX_BYTES + length:
            found.append(bytes(self.body[grpc.PREFIX_BYTES : grpc.PREFIX_BYTES + length]))
            del self.body[: grpc.PREFIX_BYTES + length]
        return found


class _Calling:
    """The client's side of a connection. `limit_bytes`: of what is kept of one answer; None where the server is our own."""

    def __init__(self, *, limit_bytes: int | None = None) -> None:
        self.connection = Connection(self, client=True)
        self._limit_bytes = limit_bytes
        self._answers: dict[int, _Answer] = {}

    async def call(self, path: str, body: bytes, timeout_s: float | None) -> AsyncGenerator[bytes, None]:
        if self.connection.is_closing:
            raise Unavailable(f"cannot call {path}: the daemon closed the connection; connect again")
        stream_id = self.connection.open(grpc.request_head(path, timeout_s), grpc.pack(body))
        if stream_id is None:
            raise Unavailable(f"cannot call {path}: the daemon takes no more calls at once; wait for other calls to end")
        answer = self._answers[stream_id] = _Answer()
        try:
            await self.connection.taken(stream_id)
            async for message in _read(answer):
                yield message
        except Refused as refused:  # what came is no answer that we can read
            raise error_of(refused.code, f"cannot read the answer to {path}: {refused.text}") from refused
        finally:
            del self._answers[stream_id]
            self.connection.reset(stream_id)
            self.connection.flush()
        if answer.code is None:
            raise Unavailable(f"the connection ended during {path}; ask for the state before you repeat the call")
        if answer.code != Code.OK:
            raise error_of(answer.code, answer.text)

    def on_head(self, head: Head) -> None:
        answer = self._answers.get(head.stream_id)
        if answer is None:
            return
        found = dict(head.fields)
        if grpc.STATUS in found:
            answer.code = _status_code(found[grpc.STATUS])
            answer.text = grpc.decode_text(found.get(grpc.MESSAGE, ""))
        elif found.get(":status", "200") != "200":
            answer.code, answer.text = Code.UNKNOWN, f"HTTP status {found[':status']}"
        if head.ends:
            answer.end()

    def on_body(self, body: Body) -> None:
        if answer := self._answers.get(body.stream_id):
            answer.body += body.payload
            answer.changed.set()
            if self._limit_bytes is not None and len(answer.body) > self._limit_bytes:
                answer.body.clear()
                answer.code, answer.text = Code.RESOURCE_EXHAUSTED, f"the answer is over {self._limit_bytes} bytes"
                answer.end()
            elif body.ends:
                answer.end()

    def on_reset(self, stream_id: int) -> None:
        if answer := self._answers.get(stream_id):
            answer.end()

    def on_closed(self) -> None:
        for answer in self._answers.values():
            answer.end()


async def _read(answer: _Answer) -> AsyncIterator[bytes]:
    while True:
        answer.changed.clear()
        is_over = answer.is_over
        for message in answer.messages():
            yield message
        if is_over:
            return
        await answer.changed.wait()


def _status_code(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 2 else Code.UNKNOWN


@asynccontextmanager
async def _closing(side: _Calling) -> AsyncIterator[Client]:
    try:
        yield Client(side)
    finally:
        side.connection.close()
        await side.connection.closed.wait()


def _reply_type(service: str, method: str) -> type[Message]:
    described = api_pb2.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[method]
    found: type[Message] = getattr(api_pb2, described.output_type.name)
    return found
