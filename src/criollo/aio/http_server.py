"""An HTTP/1.1 server for connections that somebody else accepted: routes in, replies out.

    http = HttpServer({("GET", "/info"): info})
    await http.serve(transport, first_bytes)        # returns when the connection has ended

One request at a time per connection, kept alive between them. Everything a client can make big or slow is limited: request
line and headers together, body, the time to send a request, the time to take a reply. What is malformed gets 400 and the
connection is closed, so that two readers of the same bytes can never disagree about where the next request begins.

An *upgrade route* takes the connection over for another protocol. It gets the request and the transport, whose reading is
paused, before any 101 is written; a client that did not wait for the 101 is refused.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Final, TypeVar, cast
from urllib.parse import parse_qs, unquote

import h11
import msgspec

from criollo.aio import threads
from criollo.aio.together import first
from criollo.errors import (
    CriolloError,
    Denied,
    Exhausted,
    Exists,
    Forbidden,
    Invalid,
    NotFound,
    TimedOut,
    Unavailable,
    Unsupported,
    WrongState,
)
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_STATUS: Final[dict[type[CriolloError], int]] = {
    Invalid: 400,
    Denied: 403,
    Forbidden: 403,
    NotFound: 404,
    Exists: 409,
    WrongState: 409,
    Unsupported: 501,
    Unavailable: 503,
    TimedOut: 504,
    Exhausted: 507,
}
_CHUNK = 64 << 10
MAX_HEADERS = 200
AReply = TypeVar("AReply", bound="Reply | None")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose body has arrived whole. `path` is decoded and has no control characters; header names are lower-case.

    A header that came several times has its values joined by commas. Source: RFC 9110, section 5.2.
    """

    method: str
    path: str
    query: dict[str, list[str]]  # a key may come several times
    words: tuple[str, ...] = ()  # what stood in the path where the route has `{}`
    headers: dict[str, str]
    body: bytes = b""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """`parts`, where given, are sent as they come, after which the connection closes for HTTP/1.0 clients."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    parts: AsyncGenerator[bytes, None] | None = None
    headers: tuple[tuple[str, str], ...] = ()


Route = Callable[[Request], Awaitable[Reply]]
Routes = Mapping[tuple[str, str], Route]
"""Handlers by method and path; a part `{}` of a path stands for any one part: `/pulls/{}/events`."""


class WithClient:
    """A route whose work ends when its client hangs up, also by closing its side of the connection alone."""

    def __init__(self, route: Route) -> None:
        self.route = route

    async def __call__(self, request: Request) -> Reply:
        return await self.route(request)


Upgrade = Callable[[Request, asyncio.Transport], Awaitable[Reply | None]]
"""Refuses with a reply, or serves the connection in its own way and returns None when it has ended."""
Upgrades = Mapping[str, Upgrade]
"""Handlers of GET and POST by the beginning of the path: `/exec/`."""


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and seconds."""

    head_bytes: int = 64 << 10
    body_bytes: int = 1 << 20
    request_s: float = 10  # from the first byte of a request to its last
    idle_s: float = 60  # between requests
    write_s: float = 60  # for the client to take what we sent


def text(status: int, message: str) -> Reply:
    """A reply for a person."""
    return Reply(status=status, body=message.encode() + b"\n")


class HttpServer:
    """Answers requests by a table of routes. `rare` gives further ones when a request first fits none: once, in a thread."""

    def __init__(
        self,
        routes: Routes,
        limits: HttpLimits | None = None,
        *,
        upgrades: Upgrades | None = None,
        rare: Callable[[], Routes] | None = None,
    ) -> None:
        self._routes: dict[tuple[str, str], Route] = {}
        self._open_paths: dict[str, list[str]] = {}
        self._upgrades = dict(upgrades or {})
        self._learn(routes)
        self._limits = limits or HttpLimits()
        self._rare, self._learning = rare, asyncio.Lock()

    async def serve(self, transport: asyncio.Transport, begun: bytes = b"") -> None:
        """Serve one connection until it ends. `begun` are bytes already read; reading may be paused."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_CHUNK, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(begun)
        if not transport.is_closing():
            transport.resume_reading()
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        wire = _Wire(reader, writer, connection, self._limits)
        try:
            while await self._one(wire):
                connection.start_next_cycle()
        except TimeoutError as error:  # it does not take our answer
            log.debug("HTTP connection ended", cause=error)
            transport.abort()
        except (OSError, h11.LocalProtocolError) as error:
            log.debug("HTTP connection ended", cause=error)
        finally:
            writer.close()
            if transport.get_write_buffer_size():  # the end of a reply: closing waits for the client to take it, for ever
                loop.call_later(self._limits.write_s, _give_up, transport)

    async def _one(self, wire: "_Wire") -> bool:
        """Answer one request; True when another may follow."""
        try:
            request = await wire.request()
        except h11.RemoteProtocolError as error:
            await wire.send(text(error.error_status_hint, f"malformed request: {error}"), keep=False)
            return False
        except _Refused as refused:
            await wire.send(refused.reply, keep=False)
            return False
        if request is None:
            return False
        upgrade = next((take for begins, take in self._upgrades.items() if request.path.startswith(begins)), None)
        if upgrade is None:
            await wire.send(await self._answer(self._reply(request, wire), request), keep=True)
            return wire.can_continue
        reply = await self._answer(self._upgraded(request, upgrade, wire), request)
        if reply is not None:
            wire.take_back()
            await wire.send(reply, keep=False)
        return False

    async def _upgraded(self, request: Request, upgrade: Upgrade, wire: "_Wire") -> Reply | None:
        if request.method not in ("GET", "POST"):
            return text(405, f"{request.path[:200]} takes GET, POST")
        if not wire.hand_over():
            return text(400, "malformed request: bytes came before this server agreed to another protocol")
        return await upgrade(request, wire.transport)

    async def _reply(self, request: Request, wire: "_Wire") -> Reply:
        method = "GET" if request.method == "HEAD" else request.method
        path, words = self._known_path(request.path)
        if not path:
            await self._learn_rare()
            path, words = self._known_path(request.path)
        request = msgspec.structs.replace(request, words=words)
        route = self._routes.get((method, path))
        if route is None:
            allowed = sorted(known for known, whole in self._routes if whole == path)
            if allowed:
                return text(405, f"{request.path[:200]} takes {', '.join(allowed)}")
            return text(404, f"there is nothing at {request.path[:200]}")
        return await (wire.while_open(route(request)) if isinstance(route, WithClient) else route(request))

    async def _learn_rare(self) -> None:
        async with self._learning:
            if self._rare is not None:
                self._learn(await threads.files(self._rare))
                self._rare = None

    def _learn(self, routes: Routes) -> None:
        self._routes |= routes
        self._open_paths |= {path: path.split("/") for _, path in routes if "/{}" in path}

    def _known_path(self, path: str) -> tuple[str, tuple[str, ...]]:
        """The route's path that a request's path fits, empty if none, and the words in the places of `{}`."""
        if any(known == path for _, known in self._routes):
            return path, ()
        parts = path.split("/")
        for known, pattern in self._open_paths.items():
            pairs = list(zip(pattern, parts, strict=False))
            if len(pattern) == len(parts) and all(have if want == "{}" else want == have for want, have in pairs):
                return known, tuple(have for want, have in pairs if want == "{}")
        return "", ()

    async def _answer(self, work: Coroutine[None, None, AReply], request: Request) -> AReply | Reply:
        """What `work` gives, or the reply for its error."""
        try:
            return await work
        except CriolloError as error:
            status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
            return text(status, str(error))
        except _HungUp:
            raise
        except Exception:  # the border of a request: a bug of ours, told once
            log.exception("HTTP request failed by a bug", method=request.method, path=request.path)
            return text(500, "criollo has a bug; its log has the details")


def _give_up(transport: asyncio.Transport) -> None:
    """End a connection whose client still has not taken all that was sent."""
    if transport.get_write_buffer_size():
        transport.abort()


class _HungUp(ConnectionResetError):
    """Nobody waits for an answer any more."""


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.reply = text(status, message)
        super().__init__(message)


class _Wire:
    """h11 between a reader and a writer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection, limits: HttpLimits
    ) -> None:
        self._reader, self._writer, self._h11, self._limits = reader, writer, connection, limits
        self._wants_body = True

    @property
    def can_continue(self) -> bool:
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    @property
    def transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self._writer.transport)

    def hand_over(self) -> bool:
        """Stop reading for another reader; False when the client has sent more than its request."""
        self.transport.pause_reading()
        return not self._h11.trailing_data[0] and not self._reader._buffer  # type: ignore[attr-defined]  # no other way to ask

    def take_back(self) -> None:
        self.transport.resume_reading()

    async def while_open(self, work: Awaitable[Reply]) -> Reply:
        """What `work` gives. Raises _HungUp: the client hung up first, and the work has been cancelled."""
        replies: list[Reply] = []

        async def done() -> None:
            replies.append(await work)

        await first(done(), self._end())
        if not replies:
            raise _HungUp("the client hung up before the answer")
        return replies[0]

    async def _end(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = await self._reader.read(_CHUNK)
        if data:  # the next request, before the answer to this one: so it waits for that
            self._h11.receive_data(data)
            await asyncio.Event().wait()

    async def request(self) -> Request | None:
        """The next request, None when the client is done or idle. Raises RemoteProtocolError, _Refused."""
        if not self._h11.trailing_data[0]:
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    self._h11.receive_data(await self._reader.read(_CHUNK))
            except TimeoutError:
                return None
        try:
            async with asyncio.timeout(self._limits.request_s):
                head = await self._event()
                if not isinstance(head, h11.Request):
                    return None
                self._wants_body = head.method != b"HEAD"
                _check_head(head, self._limits.head_bytes)
                return _request(head, await self._body(head))
        except TimeoutError:
            raise _Refused(408, f"the request did not arrive within {self._limits.request_s:g} s") from None

    async def send(self, reply: Reply, *, keep: bool) -> None:
        """Send a reply; without `keep`, or where the framing demands it, the connection closes after it."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("content-type", reply.content_type), *reply.headers]
        if reply.parts is None:
            headers.append(("content-length", str(len(reply.body))))
        if not keep:
            headers.append(("connection", "close"))
        await self._write(h11.Response(status_code=reply.status, headers=headers))
        if self._wants_body:
            await self._write_body(reply)
        await self._write(h11.EndOfMessage())

    async def _write_body(self, reply: Reply) -> None:
        if reply.parts is None:
            await self._write(h11.Data(data=reply.body))
            return
        async with aclosing(reply.parts) as parts:
            async for part in parts:
                await self._write(h11.Data(data=part))

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(await self._reader.read(_CHUNK))
        return event

    async def _body(self, head: h11.Request) -> bytes:
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._limits.body_bytes:
                raise _Refused(413, f"the body is over {self._limits.body_bytes} bytes")
        return bytes(body)

    async def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._writer.write(data)
            async with asyncio.timeout(self._limits.write_s):
                await self._writer.drain()


def _check_head(head: h11.Request, limit_bytes: int) -> None:
    """Raise _Refused for what h11 lets pass: size of a head that came at once, other versions, two lengths of the body."""
    names = [name for name, _ in head.headers]
    if head.http_version not in (b"1.0", b"1.1"):
        raise _Refused(505, "this server speaks HTTP/1.0 and HTTP/1.1")
    if len(names) > MAX_HEADERS or len(head.target) + sum(len(n) + len(v) + 4 for n, v in head.headers) > limit_bytes:
        raise _Refused(431, f"the request's head is over {limit_bytes} bytes or {MAX_HEADERS} headers")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise _Refused(400, "malformed request: it has both Content-Length and Transfer-Encoding")


def _request(head: h11.Request, body: bytes) -> Request:
    """The request as routes see it. Raises _Refused for a target that is no plain path."""
    target, _, query = head.target.decode("ascii").partition("?")
    try:
        path = unquote(target, errors="strict")
        pairs = parse_qs(query, keep_blank_values=True, max_num_fields=100, errors="strict")
    except ValueError as error:
        raise _Refused(400, "malformed request: the target is not UTF-8 or has over 100 parameters") from error
    if not path.startswith("/") or not path.isprintable():
        raise _Refused(400, "malformed request: the target must be a path of printable characters")
    return Request(
        method=head.method.decode("ascii"),
        path=path,
        query=pairs,
        headers=_joined(head),
        body=body,
    )


def _joined(head: h11.Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
