"""HTTP connections to registries, each request held by the lifeline of its transfer.

One request is one hop: no redirects, no retries, no decoding of content; those belong to the callers. Only what was asked on
a kept connection that its server gave up meanwhile is asked again, on a new one, as Go's clients do. There is one pool for
plain HTTP, one for verified TLS and one without verification (only for hosts marked insecure), each once more per proxy and per
set of certificate files as they are on the disk now; they are made on first need, since a trust store takes megabytes.
Everything here runs in transfer threads, except `close_idle`.
"""

import functools
import queue
import socket
import ssl
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from criollo.errors import Invalid, Unavailable
from criollo.registry.bounded import BoundedResponse, Endless
from criollo.registry.endpoints import NO_TLS, Tls
from criollo.registry.lifeline import Lifeline
from criollo.registry.proxies import Proxies, userinfo, without_userinfo
from criollo.registry.redirects import Origin, origin

CHUNK_BYTES: Final = 128 << 10  # measured best with http.client's read1
_MAX_ADDRESSES: Final = 4
# How the end of a connection shows itself, in plain and in TLS.
_ENDED: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
# A certificate and the key of another: while both are renewed, one after the other, it is so for a moment.
_NO_PAIR: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
_MAX_POOLS: Final = 32
_BARE: Final = {"redirect": False, "retries": False, "preload_content": False, "decode_content": False}
_NO_END: Final = "its answer has headers or framing without end; check what answers there"
_thread = threading.local()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often; seconds and bytes."""

    connect_s: float = 10
    idle_s: float = 60  # without a byte; below `slowest_bytes` in that time counts as idle too
    slowest_bytes: int = 4096
    document_s: float = 120  # a manifest, token or error text as a whole
    rounds: int = 4  # through all endpoints, without progress between
    backoff_s: float = 0.25  # doubled each round, with jitter
    longest_wait_s: float = 30  # a longer Retry-After is an answer for the caller, not a pause
    limited_s: float = 120  # with 429 as the only answer
    limited_backoff_s: float = 1  # after a 429 that does not say how long; doubled each time, with jitter
    longest_closed_s: float = 300  # whatever Retry-After says, a host is asked again after this time
    shun_s: float = 30  # for so long a mirror that could not be reached is left out
    keep_s: float = 5  # idle connections


class Retryable(Unavailable):
    """It may work at the next try, after `wait_s` seconds if that is more than our own pause."""

    def __init__(self, message: str, *, wait_s: float = 0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Unreachable(Retryable):
    """No answer at all came back."""


class NoTls(Unavailable):
    """TLS could not be agreed on, or the certificate is not trusted: waiting does not mend that."""


class Body(Protocol):
    """What goes along with a request; it is sent from its beginning each time."""

    @property
    def size(self) -> int: ...
    def rewind(self) -> None: ...
    def read(self, count: int = -1, /) -> bytes: ...


class Connections:
    """All pools of one registry client."""

    def __init__(self, limits: Limits, environ: Mapping[str, str]) -> None:
        self._limits = limits
        self._proxies = Proxies(environ)
        self._lock = threading.Lock()
        self._pools: OrderedDict[tuple[Hashable, ...], urllib3.PoolManager] = OrderedDict()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        insecure: bool,
        body: bytes | Body | None = None,
        tls: Tls = NO_TLS,
        connect_s: float = 0,
    ) -> BaseHTTPResponse:
        """Send one request and return the answer with its body unread and its `url` whole; the caller closes or releases it.

        `connect_s` takes the place of the limit of that name, if there is one.

        Raises:
            Unreachable, NoTls: no answer; the message says why and what to look at.
            Invalid: a file that `tls` names cannot be used.
            Retryable: the key that it names is not the certificate's.
            Aborted: the transfer was ended.
        """
        there = origin(url)
        proxy = self.proxy(url)
        trust = "none" if there.scheme == "http" else "anybody" if insecure else "store"
        pool = self._pool(trust, proxy, NO_TLS if trust == "none" else tls)
        limits = self._limits if not connect_s else msgspec.structs.replace(self._limits, connect_s=connect_s)
        lifeline = current()
        lifeline.check()
        send = functools.partial(pool.urlopen, method, url, body=body, headers=dict(headers), **_BARE, timeout=_timeout(limits))
        try:
            answer = _sent(send, may_repeat=body is None)
        except (HTTPError, OSError) as error:
            lifeline.check()
            kind = NoTls if isinstance(error, SSLError) else Unreachable
            raise kind(_why(error, there, proxy, limits)) from error
        answer.url = url
        return answer

    def proxy(self, url: str) -> str:
        """The proxy for a URL, or an empty string; it may hold a password."""
        there = origin(url)
        return self._proxies.choose(there.scheme, there.host, there.port)

    def close_idle(self) -> None:
        """Close connections that no request uses."""
        with self._lock:
            for manager in self._pools.values():
                _close_idle(manager)

    def _pool(self, trust: str, proxy: str, tls: Tls) -> urllib3.PoolManager:
        key = (trust, proxy, tls, _as_they_are(tls))
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = _make_pool(self._limits, _context(trust, tls), proxy)
                if len(self._pools) > _MAX_POOLS:
                    _close_idle(self._pools.popitem(last=False)[1])
            self._pools.move_to_end(key)
            return pool


def held_by(lifeline: Lifeline) -> None:
    """From here on, the requests of this thread belong to `lifeline`."""
    _thread.lifeline = lifeline


def broken(error: Exception, host: str, limits: Limits) -> Retryable:
    """The error of ours for a body that broke off."""
    if isinstance(error, ReadTimeoutError):
        return Retryable(f"cannot fetch from registry {host}: no byte for {limits.idle_s:g} s; try again later")
    if _is_endless(error):
        return Retryable(f"cannot fetch from registry {host}: {_NO_END}")
    return Retryable(f"cannot fetch from registry {host}: the connection broke off; try again later")


def current() -> Lifeline:
    """The lifeline of this thread's transfer."""
    lifeline: Lifeline = _thread.lifeline
    return lifeline


class _GivenUp(ProtocolError):
    """A kept connection ended before anything of an answer came: most likely its server had closed it already."""


def _sent(send: Callable[[], BaseHTTPResponse], *, may_repeat: bool) -> BaseHTTPResponse:
    """The answer; from a new connection, if a kept one was given up by its server."""
    try:
        return send()
    except _GivenUp:
        current().check()
        if not may_repeat:
            raise
    _thread.wants_new = True
    try:
        return send()
    finally:
        _thread.wants_new = False


class _PlainConnection(HTTPConnection):
    """urllib3's, but its socket belongs to the transfer at hand, and its answers are bounded."""

    response_class = BoundedResponse
    was_kept = False

    def _new_conn(self) -> socket.socket:
        self.was_kept = False
        return _connect(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _take_over(self)
        super().request(*args, **kwargs)


class _TlsConnection(HTTPSConnection):
    """The same over TLS."""

    response_class = BoundedResponse
    was_kept = False

    def _new_conn(self) -> socket.socket:
        self.was_kept = False
        return _connect(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _take_over(self)
        super().request(*args, **kwargs)


class _Keeping(urllib3.HTTPConnectionPool):
    """urllib3's, but a connection that it keeps is no transfer's any more."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)
        if getattr(_thread, "wants_new", False):
            connection.close()  # it connects anew
        return connection

    def _put_conn(self, conn: Any) -> None:
        current().let_go()
        if conn is not None:
            conn.was_kept = True
        super()._put_conn(conn)

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        try:
            return super()._make_request(conn, *args, **kwargs)
        except (OSError, HTTPException) as error:
            if conn.was_kept and isinstance(error, _ENDED):
                raise _GivenUp("the server gave up a kept connection", error) from error
            raise


class _PlainPool(_Keeping):
    ConnectionCls = _PlainConnection


class _TlsPool(_Keeping, urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _take_over(connection: HTTPConnection) -> None:
    """A kept connection serves another transfer now."""
    sock = connection.sock
    if sock is not None:
        current().hold(sock)


def _connect(connection: HTTPConnection) -> socket.socket:
    """A connected socket, held by the transfer's lifeline from before the connect."""
    try:
        found = socket.getaddrinfo(connection._dns_host.strip("[]"), connection.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except UnicodeError:
        raise LocationParseError(f"{connection.host!r}, host is not valid") from None
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in found[:_MAX_ADDRESSES]:
        sock = socket.socket(family, kind, protocol)
        try:
            current().hold(sock)
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(connection.timeout)
            sock.connect(address)
        except OSError as error:
            sock.close()
            current().check()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, "no answer in time") from failure
    raise NewConnectionError(connection, str(failure)) from failure


def _close_idle(manager: urllib3.PoolManager) -> None:
    """Close what is idle now. Who holds one of the pools goes on with it: they stay open."""
    pools = [manager.pools.get(key) for key in manager.pools.keys()]  # noqa: SIM118 - its own container: no iterating
    manager.clear()
    for pool in pools:
        kept = pool.pool if pool is not None else None
        while kept is not None:
            try:
                connection = kept.get(block=False)
            except queue.Empty:
                break
            if connection is not None:
                connection.close()


def _as_they_are(tls: Tls) -> tuple[tuple[int, int], ...]:
    """Changes with the content of the files, so that a renewed certificate gets connections of its own."""
    found = []
    for name in (*tls.authorities, tls.certificate, tls.key):
        if name:
            try:
                status = Path(name).stat()
            except OSError as error:
                raise Invalid(
                    name, error.strerror, "a certificate or key that can be read; see certs.d or hosts.toml"
                ) from None
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def _context(trust: str, tls: Tls) -> ssl.SSLContext | None:
    """TLS that trusts the node's `store` and what `tls` adds, `anybody`, or is not needed (`none`)."""
    if trust == "none":
        return None
    if trust == "store":
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        warnings.filterwarnings("ignore", category=InsecureRequestWarning)  # a file asked for it
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    name = ""
    try:
        for name in tls.authorities:
            context.load_verify_locations(name)
        if tls.certificate:
            name = tls.certificate
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:
        if isinstance(error, ssl.SSLError) and error.reason in _NO_PAIR:
            raise Retryable(f"cannot use {name}: {tls.key} is not its key; install a certificate with its key") from None
        raise Invalid(name, "no certificate with its key", "PEM, and a key without a password") from None
    return context


def _timeout(limits: Limits) -> urllib3.Timeout:
    return urllib3.Timeout(connect=limits.connect_s, read=limits.idle_s)


def _make_pool(limits: Limits, context: ssl.SSLContext | None, proxy: str) -> urllib3.PoolManager:
    arguments: dict[str, Any] = {"num_pools": 16, "maxsize": 8, "block": False, "timeout": _timeout(limits)}
    if context is not None:
        arguments["ssl_context"] = context
    if proxy:
        user = userinfo(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
        pool: urllib3.PoolManager = urllib3.ProxyManager(proxy, proxy_headers=headers, **arguments)
    else:
        pool = urllib3.PoolManager(**arguments)
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return pool


def _why(error: Exception, there: Origin, proxy: str, limits: Limits) -> str:
    what = f"cannot reach registry {there.netloc}"
    if proxy:
        what += f" through proxy {without_userinfo(proxy)}"
    if isinstance(error, ProxyError) and isinstance(error.original_error, Exception):
        return f"{what}: the proxy does not serve us; check HTTPS_PROXY and NO_PROXY"
    if isinstance(error, NameResolutionError):
        return f"{what}: its name does not resolve; check the image name and the node's DNS"
    if isinstance(error, NewConnectionError):
        cause = error.__cause__.strerror if isinstance(error.__cause__, OSError) else None
        return f"{what}: {(cause or 'no connection').lower()}; check that it runs and listens there"
    if isinstance(error, ConnectTimeoutError):
        return f"{what}: no connection within {limits.connect_s:g} s; check network and firewall"
    if isinstance(error, ReadTimeoutError):
        return f"{what}: no answer for {limits.idle_s:g} s; try again later"
    if isinstance(error, SSLError):
        return f"{what}: {_tls_cause(error)}"
    if _is_endless(error):
        return f"{what}: {_NO_END}"
    return f"{what}: it broke off the connection; try again later"


def _is_endless(error: Exception) -> bool:
    return any(isinstance(each, Endless) for each in (error, *error.args))


def _tls_cause(error: SSLError) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        cause = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "not trusted"
        if cause.endswith(("not yet valid", "has expired")):
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return f"its certificate is refused ({cause}); it is {now} by this node's clock: set it, or have a new one issued"
        return f"its certificate is refused ({cause}); add its CA to the node's store, or mark it insecure in registries.conf"
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return "it does not speak TLS; if that is meant, mark it insecure in registries.conf"
    return "no TLS connection could be agreed on; check its certificate and TLS version"
