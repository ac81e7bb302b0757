"""The CRI server: gRPC calls of accepted connections, to handlers by method.

    server = Server({"runtime.v1.RuntimeService": runtime.calls(), "runtime.v1.ImageService": image.calls()})
    await server.serve(transport, first_bytes)     # from the front door; returns when the connection has ended
    await server.serve_on(sock)                    # a connected socket, e.g. one end of a socketpair

Every CRI method is one request and one reply or a stream of replies, so a request is collected whole and only then becomes a
task; a slow or lying sender holds memory within the limits and nothing else. A method without a handler is UNIMPLEMENTED by
name. Tasks of a connection belong to it and end with it.
"""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from google.protobuf import message_factory

from criollo.cri import grpc
from criollo.cri.calls import Calls, Handler, Method, Observer, StreamHandler
from criollo.cri.connection import Connection, Headers
from criollo.cri.errors import Code, Refused
from criollo.cri.pb import api_pb2
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_ANSWER_S: Final = 0.1  # before the caller's deadline: its own clock would cut off our word on what is in progress
_OK_HEADERS: Final[Headers] = [(":status", "200"), ("content-type", grpc.CONTENT_TYPE)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one server takes. Bytes and seconds."""

    message_bytes: int = 80 << 20
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
                connection.data_received(first)
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
    """A request that is still arriving."""

    __slots__ = ("body", "deadline", "method", "timer")

    def __init__(self, method: Method, deadline: float | None, timer: asyncio.TimerHandle) -> None:
        self.method, self.deadline, self.timer = method, deadline, timer
        self.body = bytearray()


class _Serving:
    """The server's side of one connection."""

    connection: Connection

    def __init__(self, server: Server, group: asyncio.TaskGroup) -> None:
        self._server, self._group = server, group
        self._loop = asyncio.get_running_loop()
        self._incoming: dict[int, _Incoming] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    # What the connection tells

    def on_headers(self, stream_id: int, headers: Headers, *, trailers: bool) -> None:
        if trailers:
            return
        try:
            method, timeout = self._accept(dict(headers))
        except Refused as refused:
            self._refuse(stream_id, refused)
        except _NotGrpc as answer:
            self.connection.send_headers(stream_id, [(":status", str(answer.status))], end=True)
            self.connection.reset(stream_id, polite=True)
        else:
            deadline = None if timeout is None else self._loop.time() + timeout - min(_ANSWER_S, timeout / 20)
            wait = min(self._server.limits.receive_s, timeout if timeout is not None else self._server.limits.receive_s)
            self._incoming[stream_id] = _Incoming(method, deadline, self._loop.call_later(wait, self._too_slow, stream_id))

    def on_data(self, stream_id: int, data: bytes) -> None:
        incoming = self._incoming.get(stream_id)
        if incoming is None:
            return
        incoming.body += data
        self._server.in_flight_bytes += len(data)
        try:
            self._check_size(incoming.body)
        except Refused as refused:
            self._drop(stream_id)
            self._refuse(stream_id, refused)

    def on_end(self, stream_id: int) -> None:
        incoming = self._incoming.get(stream_id)
        if incoming is None:
            return
        self._drop(stream_id)
        try:
            message = grpc.unpack(incoming.body)
        except Refused as refused:
            self._refuse(stream_id, refused)
            return
        self.idle.clear()
        answer = self._stream if incoming.method.streams else self._unary
        task = self._group.create_task(answer(stream_id, incoming.method, message, incoming.deadline))
        self.tasks[stream_id] = task
        task.add_done_callback(lambda _: self._done(stream_id))

    def on_reset(self, stream_id: int) -> None:
        self._drop(stream_id)
        if task := self.tasks.get(stream_id):
            task.cancel()

    def on_closed(self) -> None:
        for stream_id in list(self._incoming):
            self._drop(stream_id)
        for task in self.tasks.values():
            task.cancel()

    # Answers

    async def _unary(self, stream_id: int, method: Method, message: bytes, deadline: float | None) -> None:
        try:
            reply = await self._server.calls.answer(method, message, deadline)
            await self._send(stream_id, reply, first=True)
        except Refused as refused:
            self._refuse(stream_id, refused)
        else:
            self._finish(stream_id)

    async def _stream(self, stream_id: int, method: Method, message: bytes, deadline: float | None) -> None:
        first = True
        try:
            async with aclosing(self._server.calls.answers(method, message, deadline)) as replies:
                async for reply in replies:
                    await self._send(stream_id, reply, first=first)
                    first = False
                    self.connection.flush()
        except Refused as refused:
            self._refuse(stream_id, refused, first=first)
        else:
            if first:
                self.connection.send_headers(stream_id, _OK_HEADERS)
            self._finish(stream_id)

    async def _send(self, stream_id: int, reply: bytes, *, first: bool) -> None:
        size, server = len(reply), self._server
        if size > server.limits.message_bytes:
            text = f"the reply has {size} bytes, the limit is {server.limits.message_bytes}; use the Stream form of the call"
            raise Refused(Code.RESOURCE_EXHAUSTED, text)
        if server.in_flight_bytes + size > server.limits.in_flight_bytes:
            raise Refused(Code.RESOURCE_EXHAUSTED, "too many bytes of messages are in flight; try again")
        server.in_flight_bytes += size
        try:
            async with asyncio.timeout(server.limits.send_s):
                if first:
                    self.connection.send_headers(stream_id, _OK_HEADERS)
                await self.connection.send_body(stream_id, grpc.pack(reply))
        except TimeoutError:
            log.warning("a client does not take its reply", bytes=size)
            self.connection.reset(stream_id)
        finally:
            server.in_flight_bytes -= size

    def _finish(self, stream_id: int) -> None:
        self.connection.send_headers(stream_id, grpc.status(Code.OK), end=True)
        self.connection.flush()

    def _refuse(self, stream_id: int, refused: Refused, *, first: bool = True) -> None:
        headers = (_OK_HEADERS if first else []) + grpc.status(refused.code, refused.text)
        self.connection.send_headers(stream_id, headers, end=True)
        self.connection.reset(stream_id, polite=True)  # where the rest of the request is still on its way
        self.connection.flush()

    # Requests

    def _accept(self, headers: dict[str, str]) -> tuple[Method, float | None]:
        if headers.get(":method") != "POST":
            raise _NotGrpc(405)
        if not headers.get("content-type", "").startswith(grpc.CONTENT_TYPE):
            raise _NotGrpc(415)
        path = headers.get(":path", "")
        method = self._server.methods.get(path)
        if self._server.is_stopping:
            raise Refused(Code.UNAVAILABLE, "the daemon is stopping; connect again")
        if method is None:
            raise Refused(Code.UNIMPLEMENTED, f"there is no method {path[:200]!r} in the CRI v1 that criollo speaks")
        if method.handler is None:
            raise Refused(Code.UNIMPLEMENTED, f"{method.name} is not implemented yet by criollo")
        timeout = grpc.timeout_s(headers["grpc-timeout"]) if "grpc-timeout" in headers else None
        return method, timeout

    def _check_size(self, body: bytearray) -> None:
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
            incoming.timer.cancel()
            self._server.in_flight_bytes -= len(incoming.body)

    def _too_slow(self, stream_id: int) -> None:
        self._drop(stream_id)
        self._refuse(stream_id, Refused(Code.DEADLINE_EXCEEDED, "the request did not arrive in time"))

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
            method = Method(
                service=service.full_name,
                name=described.name,
                request_type=message_factory.GetMessageClass(described.input_type),
                reply_type=message_factory.GetMessageClass(described.output_type),
                streams=described.server_streaming,
                handler=handlers.pop(described.name, None),
            )
            methods[method.path] = method
        if handlers:
            raise ValueError(f"{service.full_name} has no methods {sorted(handlers)}")
    return methods
