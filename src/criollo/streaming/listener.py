"""The streaming port: connections by TCP, with TLS or without, each served by a task of its own.

listener = Listener(address, port, serve=http.serve, certificates=None)
listener.open()                       # bound; `listener.base_url` is what clients are told
await listener.run()                  # until cancelled
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, cast

from criollo.errors import explain
from criollo.streaming.tls import Certificates
from criollo.telemetry.log import get_logger
from criollo.telemetry.seldom import Seldom

log = get_logger(__name__)

MAX_CONNECTIONS: Final = 2000
_BACKLOG: Final = 128
_HANDSHAKE_S: Final = 10.0
_SHUTDOWN_S: Final = 5.0

Serve = Callable[[asyncio.Transport, bytes], Awaitable[None]]


class Listener:
    """A listening socket and the connections that came to it. `address`: empty for all.

    `what` is served; `keys` are the settings of address, port and TLS: for messages.
    """

    what = "streams"
    keys = ("stream_address", "stream_port", "stream_enable_tls")

    def __init__(
        self, address: str, port: int, *, serve: Serve, certificates: Certificates | None = None, limit: int = MAX_CONNECTIONS
    ) -> None:
        self._address, self._port = address, port
        self._serve, self._certificates, self._limit = serve, certificates, limit
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._group: asyncio.TaskGroup | None = None
        self._has_stopped = False
        self._refusals = Seldom()
        self.open_connections = 0

    def open(self) -> None:
        """Bind and listen. Raises HostFailed, Exhausted."""
        shown = f"{self._address or 'all addresses'}, port {self._port}"
        with explain(f"listen for {self.what} on {shown}; set another {self.keys[0]} or {self.keys[1]}"):
            self._sock = _bind(self._address, self._port)
        if self._certificates is None and not _is_loopback(self._address):
            log.warning(
                "served beyond loopback without TLS",
                what=self.what,
                address=self._address,
                remedy=f"set {self.keys[2]}, or {self.keys[0]} to 127.0.0.1",
            )
        if self._certificates is not None:
            log.debug("TLS enabled for streaming server", cert=self._certificates.files.cert)

    @property
    def port(self) -> int:
        assert self._sock is not None
        return int(self._sock.getsockname()[1])

    @property
    def base_url(self) -> str:
        """Where clients find us: an address that they can connect to even where we listen on all."""
        scheme = "http" if self._certificates is None else "https"
        return f"{scheme}://{self._host(reachable(self._address))}"

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header of a client of ours may be."""
        names = (reachable(self._address), "127.0.0.1", "::1", "localhost")
        return frozenset(self._host(name) for name in names)

    async def run(self) -> None:
        """Take connections until cancelled, which ends those that are open."""
        assert self._sock is not None
        async with asyncio.TaskGroup() as self._group:
            try:
                self._server = await asyncio.get_running_loop().create_server(
                    lambda: _Arrival(self), sock=self._sock, backlog=_BACKLOG
                )
                if self._certificates is not None:
                    self._group.create_task(self._certificates.watch())
                await asyncio.Event().wait()
            finally:  # before the connections end: the group takes no further one meanwhile
                self.stop_accepting()

    def stop_accepting(self) -> None:
        """Take no further connection; may be repeated, also by who never ran."""
        self._has_stopped = True
        if self._server is not None:
            self._server.close()
        elif self._sock is not None:
            self._sock.close()

    def admit(self, arrival: "_Arrival") -> bool:
        if self._group is None or self._has_stopped:
            return False
        if self.open_connections >= self._limit:
            if times := self._refusals.due():
                log.warning("connection refused: too many are open", what=self.what, limit=self._limit, times=times)
            return False
        self.open_connections += 1
        self._group.create_task(self._one(arrival)).add_done_callback(lambda task: self._ended(arrival, task))
        return True

    def _ended(self, arrival: "_Arrival", task: asyncio.Task[None]) -> None:
        self.open_connections -= 1
        if task.cancelled():  # maybe before its first step
            arrival.transport.abort()

    async def _one(self, arrival: "_Arrival") -> None:
        transport = arrival.transport
        try:
            if self._certificates is not None:
                transport = await _with_tls(arrival, self._certificates.context)
            await self._serve(transport, bytes(arrival.first))
        except (OSError, TimeoutError) as error:  # ssl.SSLError among them
            log.debug("streaming connection refused", cause=error)
            arrival.transport.abort()
        except Exception:  # the border of a connection: one that fails must not close the port for all
            log.exception("streaming connection ended by an error of our own")
            arrival.transport.abort()
        finally:
            transport.close()

    def _host(self, name: str) -> str:
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


class _Arrival(asyncio.Protocol):
    """A connection until somebody serves it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.first = bytearray()  # what came with the end of a TLS handshake
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()
        if not self._listener.admit(self):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.first += data


async def _with_tls(arrival: _Arrival, context: ssl.SSLContext) -> asyncio.Transport:
    transport = await asyncio.get_running_loop().start_tls(
        arrival.transport,
        arrival,
        context,
        server_side=True,
        ssl_handshake_timeout=_HANDSHAKE_S,
        ssl_shutdown_timeout=_SHUTDOWN_S,
    )
    return cast(asyncio.Transport, transport)


def reachable(address: str) -> str:
    """An address of this host for clients of a server on `address`: itself, or for all the one that leads outside."""
    if address and not ipaddress.ip_address(address).is_unspecified:
        return address
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # RFC 5737, RFC 3849
        if family is socket.AF_INET6 and address == "0.0.0.0":  # noqa: S104
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # asks the routing table; nothing is sent
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def _is_loopback(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address).is_loopback


def _bind(address: str, port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6() and ipaddress.ip_address(address or "::") == ipaddress.IPv6Address("::")
    if not address and not both:
        address = "0.0.0.0"  # noqa: S104  # that is what an empty address means
    family = socket.AF_INET if address and ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    sock = socket.create_server((address or "::", port), family=family, dualstack_ipv6=both, backlog=_BACKLOG)
    # Accepted connections inherit it; asyncio sets it only on sockets made with an explicit protocol, which these are not.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock
