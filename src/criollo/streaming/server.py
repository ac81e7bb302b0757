"""Sessions from token to end: what CRI's Exec, Attach and PortForward promise, and what becomes of it.

    streaming = Streaming(pods, idle_s=4 * 3600)
    url = streaming.issue(session)                    # http://127.0.0.1:41234/exec/<token>, checked before
    HttpServer(routes, upgrades=streaming.upgrades())
    await streaming.drain(2)                          # no new sessions; those that run are told, and end

A client comes with `GET|POST /exec/<token>` and asks for another protocol. Until that is agreed on it gets an HTTP error that
a person can read, never a redirect; afterwards errors travel on its error stream. A session ends with what it runs, with its
connection, when nothing happens for long, or with the daemon; its tasks and descriptors end with it.

What serves sessions is loaded with the first one: a MiB that many nodes never need.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from criollo.aio.http_server import Reply, Request, Upgrade, text
from criollo.aio.together import first
from criollo.errors import CriolloError, Unavailable
from criollo.model.session import AttachSession, ExecSession, ForwardSession, Session
from criollo.pods.context import Pods
from criollo.streaming.idle import Idle
from criollo.streaming.negotiate import SPDY, foreign_origin, spdy_head, spdy_protocol, version, wants
from criollo.streaming.session import Offered, Pair, Status
from criollo.streaming.tokens import LIFE_S, Tokens
from criollo.telemetry.log import get_logger

if TYPE_CHECKING:
    from criollo.streaming.spdy import SpdyConnection

log = get_logger(__name__)

MAX_SESSIONS: Final = 1000
FORWARD_STREAMS: Final = 512  # of one port-forward: two for each connection
_FINISH_S: Final = 30.0
_END_S: Final = 5.0
_KINDS: Final[Mapping[str, type]] = {"exec": ExecSession, "attach": AttachSession, "portforward": ForwardSession}
_STOPPING: Final = "criollo is stopping, and its sessions end with it; containers go on: try again"


class Connection(Protocol):
    """What a session travels on."""

    ended: asyncio.Event  # the peer cannot be reached any more

    async def close(self) -> None: ...

    def abort(self) -> None: ...


class Streaming:
    """The sessions of this node. `base_url` is where its streaming port is; `hosts` are the names it goes by."""

    def __init__(self, pods: Pods, *, idle_s: float, limit: int = MAX_SESSIONS) -> None:
        self._pods, self._idle_s, self._limit = pods, idle_s, limit
        self.base_url = "http://localhost"
        self.hosts: frozenset[str] = frozenset()
        self._tokens = Tokens()
        self._is_closed = False
        self._stopping = asyncio.Event()
        self._none_runs = asyncio.Event()
        self._none_runs.set()
        self.running = 0

    def issue(self, session: Session) -> str:
        """The URL at which a client can open `session`, once and within a minute.

        Raises:
            NotFound, WrongState, Unsupported: it could not run now.
            Exhausted, Unavailable: too many wait, or the daemon stops.
        """
        if self._is_closed:
            raise Unavailable(f"cannot open a stream: {_STOPPING}")
        from criollo.streaming.process import check_session

        check_session(self._pods, session)
        kind = next(kind for kind, its_type in _KINDS.items() if isinstance(session, its_type))
        return f"{self.base_url}/{kind}/{self._tokens.issue(session)}"

    def upgrades(self) -> dict[str, Upgrade]:
        """The routes for an HttpServer."""
        return {f"/{kind}/": self._upgrade for kind in _KINDS}

    async def drain(self, grace_s: float) -> None:
        """Take no new session, give those that run `grace_s` to end by themselves, then tell their clients and end them."""
        self._is_closed = True
        for limit_s in (grace_s, _END_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._none_runs.wait()
            self._stopping.set()

    async def _upgrade(self, request: Request, transport: asyncio.Transport) -> Reply | None:
        refusal = foreign_origin(request, self.hosts)
        if refusal is not None:
            return refusal
        session = self._session(request)
        if session is None:
            return text(404, f"no such session: its token is unknown, was used, or is older than {LIFE_S:g} s; ask for another")
        if self._is_closed:
            return text(503, f"cannot open a stream: {_STOPPING}")
        if self.running >= self._limit:
            return text(503, f"cannot open a stream: {self._limit} sessions are open; end one of them, then try again")
        from criollo.streaming.process import check_session

        check_session(self._pods, session)
        self.running += 1
        self._none_runs.clear()
        try:
            return await self._agreed(request, session, transport)
        finally:
            self.running -= 1
            if not self.running:
                self._none_runs.set()

    def _session(self, request: Request) -> Session | None:
        _, kind, token = request.path.split("/", 2)
        session = self._tokens.take(token)
        return session if isinstance(session, _KINDS[kind]) else None

    async def _agreed(self, request: Request, session: Session, transport: asyncio.Transport) -> Reply | None:
        """Agree on a protocol and serve it, or refuse."""
        if wants(request, "websocket"):
            await self._serve_websocket(request, session, transport)
            return None
        if not wants(request, SPDY):
            return text(400, f"cannot open a stream: the request asks for neither Upgrade: {SPDY} nor Upgrade: websocket")
        protocol = spdy_protocol(request, session)
        if isinstance(protocol, Reply):
            return protocol
        if not transport.is_closing():
            connection = _spdy_for(session)
            transport.write(spdy_head(protocol))
            connection.start(transport)
            await self._serve_spdy(connection, session, protocol)
        return None

    async def _serve_spdy(self, connection: "SpdyConnection", session: Session, protocol: str) -> None:
        from criollo.streaming.collect import collect, forwards

        if isinstance(session, ForwardSession):
            await self._forward(session, connection, forwards(connection))
        else:
            await self._process(session, connection, collect(connection, session, version(protocol)))

    async def _serve_websocket(self, request: Request, session: Session, transport: asyncio.Transport) -> None:
        from criollo.streaming import websocket  # which clients of SPDY alone do not need
        from criollo.streaming.collect import forwards

        handshake = websocket.negotiate(request, session)
        if transport.is_closing():
            return
        if not isinstance(session, ForwardSession):
            served = await websocket.serve_channels(transport, handshake, session)
            await self._process(session, served.connection, _at_once(served.offered))
        elif handshake.is_tunnel:
            connection = _spdy_for(session)
            websocket.serve_tunnel(transport, handshake, connection)
            await self._forward(session, connection, forwards(connection))
        else:
            fixed = await websocket.serve_forwards(transport, handshake, session)
            await self._forward(session, fixed.connection, _each(fixed.pairs))

    async def _process(
        self, session: ExecSession | AttachSession, connection: Connection, offering: Coroutine[Any, Any, Offered]
    ) -> None:
        from criollo.streaming.process import run_process

        idle = Idle(self._idle_s)
        offered: Offered | None = None
        status: Status | None = None

        async def work() -> None:
            nonlocal offered, status
            offered = await offering
            status = await run_process(self._pods, session, idle.watch(offered.streams))

        async with _served(connection, session):
            ending = await self._until_end(work(), connection, idle)
            if offered is not None:
                async with asyncio.timeout(_FINISH_S):
                    await offered.finish(status or Status(failure=ending))

    async def _forward(self, session: ForwardSession, connection: Connection, pairs: AsyncIterator[Pair]) -> None:
        from criollo.streaming.forward import run_forward

        idle = Idle(self._idle_s)
        async with _served(connection, session):
            await self._until_end(run_forward(self._pods, session, pairs, idle=idle), connection, idle)

    async def _until_end(self, work: Coroutine[Any, Any, None], connection: Connection, idle: Idle) -> str:
        """Why `work` ended before it was done, if something else ends the session; it is cancelled then."""
        ending = ""

        async def note(event: Coroutine[Any, Any, object], why: str) -> None:
            nonlocal ending
            await event
            ending = ending or why

        await first(
            work,
            note(connection.ended.wait(), "the client is gone"),
            note(idle.passed(), f"the session was idle for {idle.limit_s:g} s"),
            note(self._stopping.wait(), _STOPPING),
        )
        return ending


@contextlib.asynccontextmanager
async def _served(connection: Connection, session: Session) -> AsyncIterator[None]:
    """Whatever happens in the block, the connection ends with it, and an error of ours stays here: HTTP is over."""
    kind = type(session).__name__
    log.debug("session begins", kind=kind, of=_subject(session))
    try:
        yield
    except asyncio.CancelledError:
        connection.abort()
        raise
    except (OSError, CriolloError, TimeoutError) as error:  # the client is gone, or did not keep to the protocol
        log.debug("session failed", kind=kind, of=_subject(session), cause=error)
    except Exception:  # the border of a session: it must not become an HTTP reply in the middle of a stream
        log.exception("session ended by an error of our own", kind=kind, of=_subject(session))
    finally:
        await connection.close()
        log.debug("session has ended", kind=kind, of=_subject(session))


def _spdy_for(session: Session) -> "SpdyConnection":
    from criollo.streaming.spdy import SpdyConnection

    return SpdyConnection(max_streams=FORWARD_STREAMS) if isinstance(session, ForwardSession) else SpdyConnection()


def _subject(session: Session) -> str:
    return session.pod_id if isinstance(session, ForwardSession) else session.container_id


async def _at_once(offered: Offered) -> Offered:
    return offered


async def _each(pairs: tuple[Pair, ...]) -> AsyncIterator[Pair]:
    for pair in pairs:
        yield pair
