"""The CRI server: gRPC calls of accepted connections, to handlers by method.

    server = Server({"runtime.v1.RuntimeService": runtime.calls(), "runtime.v1.ImageService": image.calls()})
    await server.serve(transport, first_bytes)     # from the front door; returns when the connection has ended
    await server.serve_on(sock)                    # a connected socket, e.g. one end of a socketpair

Every CRI method is one request and one reply or a stream of replies, so a request is collected whole and only then becomes a
task; a slow or lying sender holds memory within the limits and nothing else. A method whose handler is a plain function needs
no task: it is answered while its bytes are read, unless others have used up the loop's millisecond. A method without a
handler is UNIMPLEMENTED by name. Tasks of a connection belong to it and end with it.
"""

import asyncio
import inspect
import socket
from collections.abc import Coroutine, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from criollo.cri import grpc
from criollo.cri.calls import Calls, Handler, Method, Observer, StreamHandler
from criollo.cri.connection import Connection
from criollo.cri.errors import Code, Refused
from criollo.cri.pb import api_pb2
from criollo.telemetry import hooks
from criollo.telemetry.log import get_logger
from criollo.wire.hpack import Fields, encode
from criollo.wire.http2_events import Body, Head

if TYPE_CHECKING:
    from criollo.telemetry.tracer import Origin

log = get_logger(__name__)

_ANSWER_S: Final = 0.1  # before the caller's deadline: its own clock would cut off our word on what is in progress
_AT_ONCE_S: Final = 0.001  # how long calls of one connection are answered without a look at the others


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one server takes. Bytes and seconds."""

    message_bytes: int = 80 << 20  # of a request
    reply_bytes: int = 80 << 20
    in_flight_bytes: int = 160 << 20
    streams: int = 250
    receive_s: float = 60  # for a request to arrive
    send_s: float = 120  # for a reply to be taken


class Server:
    """Answers calls on the connections it is handed; knows all that are open."""

    def __init__(
        self,
        services: Mapping[str, Mapping[str, Handler | StreamHandler]],
        *,
        limits: Limits | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.calls = Calls(observe)
        self.methods = _methods(services)
        self.in_flight_bytes = 0
        self.is_stopping = False
        self._open: set[_Serving] = set()

    async def serve(self, transport: asyncio.Transport, first: bytes = b"") -> None:
        """Serve one connection until it ends. `first` are bytes already read; reading may be paused."""
        async with asyncio.TaskGroup() as group:
            serving = _Serving(self, group)
            connection = serving.connection = Connection(serving, client=False, streams=self.limits.streams)
            self._open.add(serving)
            try:
                transport.set_protocol(connection)
                connection.connection_made(transport)
                connection.receive(first)
                if not transport.is_closing():
                    transport.resume_reading()
                await connection.closed.wait()
            finally:
                self._open.discard(serving)
                connection.close()
                serving.on_closed()

    async def serve_on(self, sock: socket.socket) -> None:
        """Serve a connected stream socket, which is ours from now on, until it ends."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, sock)
        await self.serve(transport)

    async def drain(self, limit_s: float) -> None:
        """Refuse new calls, let running ones finish for at most `limit_s`, then close all connections."""
        self.is_stopping = True
        try:
            async with asyncio.timeout(limit_s):
                for serving in list(self._open):
                    await serving.idle.wait()
        except TimeoutError:
            log.warning("calls still run at the end of the stop's grace", calls=sum(len(s.tasks) for s in self._open))
        for serving in list(self._open):
            serving.connection.close()


class _Incoming:
    """A request that is still arriving. Times are the loop's."""

    __slots__ = ("body", "deadline", "expires", "method", "origin")

    def __init__(self, method: Method, deadline: float | None, expires: float) -> None:
        self.method, self.deadline, self.expires = method, deadline, expires
        self.body = bytearray()
        self.origin: Origin | None = None


class _Serving:
    """The server's side of one connection."""

    connection: Connection

    def __init__(self, server: Server, group: asyncio.TaskGroup) -> None:
        self._server, self._group = server, group
        self._loop = asyncio.get_running_loop()
        self._incoming: dict[int, _Incoming] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._known: tuple[Fields, tuple[Method, float | None]] | None = None
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    # What the connection tells

    def on_head(self, head: Head) -> None:
        if not head.is_trailers:
            self._begin(head)
        if head.ends:
            self._end(head.stream_id)

    def on_body(self, body: Body) -> None:
        incoming = self._incoming.get(body.stream_id)
        if incoming is None:
            return
        is_whole = body.ends and not incoming.body
        if not is_whole:
            incoming.body += body.payload
            self._server.in_flight_bytes += len(body.payload)
        try:
            self._check_size(body.payload if is_whole else incoming.body)
            if is_whole:
                del self._incoming[body.stream_id]
                self._run(body.stream_id, incoming, grpc.unpack(body.payload))
        except Refused as refused:
            self._drop(body.stream_id)
            self._refuse(body.stream_id, refused)
        else:
            if body.ends and not is_whole:
                self._end(body.stream_id)

    def on_reset(self, stream_id: int) -> None:
        self._drop(stream_id)
        if task := self.tasks.get(stream_id):
            task.cancel()

    def on_closed(self) -> None:
        for stream_id in list(self._incoming):
            self._drop(stream_id)
        for task in self.tasks.values():
            task.cancel()
        if self._sweep:
            self._sweep.cancel()

    # Requests

    def _begin(self, head: Head) -> None:
        stream_id, now = head.stream_id, self.connection.received_at
        try:
            method, timeout = self._accept(head.fields)
        except Refused as refused:
            self._refuse(stream_id, refused)
        except _NotGrpc as answer:
            self.connection.send(stream_id, trailers=encode([(":status", str(answer.status))]))
            self.connection.reset(stream_id, polite=True)
        else:
            wait, deadline = self._server.limits.receive_s, None
            if timeout is not None:
                wait, deadline = min(wait, timeout), now + timeout - min(_ANSWER_S, timeout / 20)
            incoming = self._incoming[stream_id] = _Incoming(method, deadline, now + wait)
            if hooks.tracer is not None:
                incoming.origin = hooks.tracer.read(head.fields)
            if self._sweep is None or now + wait < self._sweep.when():
                self._sweep_at(now + wait)

    def _end(self, stream_id: int) -> None:
        incoming = self._incoming.get(stream_id)
        if incoming is None:
            return
        self._drop(stream_id)
        try:
            message = grpc.unpack(incoming.body)
        except Refused as refused:
            self._refuse(stream_id, refused)
        else:
            self._run(stream_id, incoming, message)

    def _accept(self, fields: Fields) -> tuple[Method, float | None]:
        """The method a request calls, and how long its caller waits. Raises Refused and _NotGrpc."""
        if self._server.is_stopping:
            raise Refused(Code.UNAVAILABLE, "the daemon is stopping; connect again")
        if self._known and self._known[0] is fields:  # one object for fields that are repeated
            return self._known[1]
        found = dict(fields)
        if found.get(":method") != "POST":
            raise _NotGrpc(405)
        if not found.get("content-type", "").startswith(grpc.CONTENT_TYPE):
            raise _NotGrpc(415)
        path = found.get(":path", "")
        method = self._server.methods.get(path)
        if method is None:
            raise Refused(Code.UNIMPLEMENTED, f"there is no method {path[:200]!r} in the CRI v1 that criollo speaks")
        if method.handler is None:
            raise Refused(Code.UNIMPLEMENTED, f"{method.name} is not implemented yet by criollo")
        timeout = grpc.timeout_s(found[grpc.TIMEOUT]) if grpc.TIMEOUT in found else None
        self._known = fields, (method, timeout)
        return method, timeout

    def _check_size(self, body: bytes | bytearray) -> None:
        length, limits = grpc.announced(body), self._server.limits
        if length is not None and length > limits.message_bytes:
            text = f"the request has {length} bytes, the limit is {limits.message_bytes} (grpc_max_recv_msg_size)"
            raise Refused(Code.RESOURCE_EXHAUSTED, text)
        if length is not None and len(body) > length + grpc.PREFIX_BYTES:
            raise Refused(Code.INVALID_ARGUMENT, "the call sent more than the message it announced")
        if self._server.in_flight_bytes > limits.in_flight_bytes:
            raise Refused(Code.RESOURCE_EXHAUSTED, "too many bytes of messages are in flight; try again")

    def _drop(self, stream_id: int) -> None:
        incoming = self._incoming.pop(stream_id, None)
        if incoming is not None:
            self._server.in_flight_bytes -= len(incoming.body)

    def _sweep_at(self, when: float) -> None:
        if self._sweep:
            self._sweep.cancel()
        self._sweep = self._loop.call_at(when, self._drop_slow)

    def _drop_slow(self) -> None:
        """Refuse requests that have not arrived in time; one timer serves all of a connection."""
        now = self._loop.time()
        for stream_id, incoming in list(self._incoming.items()):
            if incoming.expires <= now:
                self._drop(stream_id)
                self._refuse(stream_id, Refused(Code.DEADLINE_EXCEEDED, "the request did not arrive in time"))
        self._sweep = None
        if self._incoming:
            self._sweep_at(min(incoming.expires for incoming in self._incoming.values()))

    # Answers

    def _run(self, stream_id: int, incoming: _Incoming, message: bytes) -> None:
        method = incoming.method
        if hooks.tracer is not None:
            hooks.tracer.arrive(incoming.origin)
        if method.streams:
            self._start(stream_id, self._stream(stream_id, method, message, incoming.deadline))
        elif method.is_plain and self._loop.time() - self.connection.received_at < _AT_ONCE_S:
            self._at_once(stream_id, method, message)
        else:
            self._start(stream_id, self._unary(stream_id, method, message, incoming.deadline))

    def _start(self, stream_id: int, work: Coroutine[Any, Any, None]) -> None:
        self.idle.clear()
        task = self.tasks[stream_id] = self._group.create_task(work)
        task.add_done_callback(lambda _: self._done(stream_id))

    def _at_once(self, stream_id: int, method: Method, message: bytes) -> None:
        try:
            reply = self._server.calls.answer_at_once(method, message)
            self._send(stream_id, reply, is_first=True, is_last=True)
        except Refused as refused:
            self._refuse(stream_id, refused)
        else:
            if self.connection.waits(stream_id):
                self._start(stream_id, self._taken(stream_id, len(reply)))

    async def _unary(self, stream_id: int, method: Method, message: bytes, deadline: float | None) -> None:
        try:
            reply = await self._server.calls.answer(method, message, deadline)
            self._send(stream_id, reply, is_first=True, is_last=True)
        except Refused as refused:
            self._refuse(stream_id, refused)
        else:
            await self._taken(stream_id, len(reply))

    async def _stream(self, stream_id: int, method: Method, message: bytes, deadline: float | None) -> None:
        is_first = True
        try:
            async with aclosing(self._server.calls.answers(method, message, deadline)) as replies:
                async for reply in replies:
                    self._send(stream_id, reply, is_first=is_first)
                    is_first = False
                    await self._taken(stream_id, len(reply))
        except Refused as refused:
            self._refuse(stream_id, refused, is_first=is_first)
        else:
            self.connection.send(stream_id, head=grpc.RESPONSE_HEAD if is_first else b"", trailers=grpc.OK_TRAILERS)
            self.connection.flush()

    def _send(self, stream_id: int, reply: bytes, *, is_first: bool, is_last: bool = False) -> None:
        """Queue a reply. Raises Refused when it is too large."""
        size, limits = len(reply), self._server.limits
        if size > limits.reply_bytes:
            text = f"the reply has {size} bytes, the limit is {limits.reply_bytes} (grpc_max_send_msg_size); "
            text += "use the Stream form of the call"
            raise Refused(Code.RESOURCE_EXHAUSTED, text)
        if self._server.in_flight_bytes + size > limits.in_flight_bytes:
            raise Refused(Code.RESOURCE_EXHAUSTED, "too many bytes of messages are in flight; try again")
        head, trailers = grpc.RESPONSE_HEAD if is_first else b"", grpc.OK_TRAILERS if is_last else b""
        self.connection.send(stream_id, head=head, body=grpc.pack(reply), trailers=trailers)

    async def _taken(self, stream_id: int, size: int) -> None:
        """Send what is queued; a client that does not take it in time loses its call."""
        server = self._server
        server.in_flight_bytes += size
        try:
            self.connection.flush()
            if self.connection.waits(stream_id):  # seldom: no timer for the others
                async with asyncio.timeout(server.limits.send_s):
                    await self.connection.taken(stream_id)
        except TimeoutError:
            log.warning("a client does not take its reply", bytes=size)
            self.connection.reset(stream_id)
            self.connection.flush()
        finally:
            server.in_flight_bytes -= size

    def _refuse(self, stream_id: int, refused: Refused, *, is_first: bool = True) -> None:
        self.connection.send(stream_id, trailers=grpc.refusal(refused.code, refused.text, is_first=is_first))
        self.connection.reset(stream_id, polite=True)  # where the rest of the request is still on its way
        self.connection.flush()

    def _done(self, stream_id: int) -> None:
        self.tasks.pop(stream_id, None)
        if not self.tasks:
            self.idle.set()


class _NotGrpc(Exception):
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(str(status))


def _methods(services: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """All methods of the protocol by path. Raises ValueError for a handler of a method that is not there."""
    methods: dict[str, Method] = {}
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        handlers = dict(services.get(service.full_name, {}))
        for described in service.methods:
            handler = handlers.pop(described.name, None)
            method = Method(
                service=service.full_name,
                name=described.name,
                request_type=getattr(api_pb2, described.input_type.name),
                reply_type=getattr(api_pb2, described.output_type.name),
                streams=described.server_streaming,
                handler=handler,
                is_plain=handler is not None and not inspect.iscoroutinefunction(handler),
            )
            methods[method.path] = method
        if handlers:
            raise ValueError(f"{service.full_name} has no methods {sorted(handlers)}")
    return methods
