"""Where Prometheus asks: a port, with TLS if there is a certificate, and a unix socket. Loaded only where metrics are on.

The page is made in a thread, because it counts zombies in `/proc`.
"""

import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from criollo.admin.metrics import metrics_routes
from criollo.aio import process, threads
from criollo.aio.background import Background
from criollo.aio.http_server import HttpLimits, HttpServer, Routes
from criollo.config.settings import Settings
from criollo.daemon.front_door import FrontDoor
from criollo.daemon.stream_port import tls_floor
from criollo.errors import Invalid, explain
from criollo.pods.context import Pods
from criollo.streaming.listener import Listener
from criollo.streaming.tls import Certificates, TlsFiles
from criollo.telemetry import hooks, trail
from criollo.telemetry.log import get_logger
from criollo.telemetry.node_metrics import NodeMetrics, chosen

log = get_logger(__name__)

MAX_CONNECTIONS: Final = 64
_LIMITS: Final = HttpLimits(idle_s=120, body_bytes=1 << 10)


@asynccontextmanager
async def metrics_on(settings: Settings, pods: Pods) -> AsyncIterator[None]:
    """Count while the block runs, and serve the page.

    Raises:
        Invalid, HostFailed: address, socket or certificate do not let us serve.
    """
    routes = metrics_routes(settings.metrics.metrics_collectors)
    port = await _port(settings, routes)
    door = _door(settings.metrics.metrics_socket, routes)
    with ExitStack() as opened:
        opened.callback(port.stop_accepting)
        port.open()
        if door is not None:
            opened.callback(door.stop_accepting)
            door.open()
        log.info("serving metrics", url=f"{port.base_url}/metrics", socket=settings.metrics.metrics_socket)
        opened.enter_context(_counting(settings, pods))
        async with Background() as tasks:
            tasks.start(port.run(), name="metrics port")
            if door is not None:
                tasks.start(door.run(), name="metrics socket")
            yield


@contextmanager
def _counting(settings: Settings, pods: Pods) -> Iterator[None]:
    counted = NodeMetrics()
    if unknown := chosen(settings.metrics.metrics_collectors)[1]:
        log.warning("metrics_collectors names metrics that there are not", names=",".join(unknown))
    counted.default_runtime = lambda: pods.containers.handlers.default
    counted.blocked_calls = lambda: pods.containers.blocked_calls
    events = pods.events
    if events is not None:
        counted.events_dropped = lambda: events.dropped
    hooks.metrics = counted
    trail.listen(counted)
    try:
        yield
    finally:
        hooks.metrics = None
        trail.leave(counted)


async def _port(settings: Settings, routes: Routes) -> Listener:
    wanted = settings.metrics
    address = await threads.files(_address, wanted.metrics_host)
    certificates = await _certificates(settings, address) if wanted.metrics_cert and wanted.metrics_key else None
    http = HttpServer(routes, _LIMITS)
    port = Listener(address, wanted.metrics_port, serve=http.serve, certificates=certificates, limit=MAX_CONNECTIONS)
    port.what, port.keys = "metrics", ("metrics_host", "metrics_port", "metrics_cert and metrics_key")
    return port


def _door(path: str, routes: Routes) -> FrontDoor | None:
    if not path:
        return None
    serve = HttpServer(routes, _LIMITS).serve
    return FrontDoor(Path(path), grpc=_refuse, http=serve)


async def _refuse(transport: object, first: bytes) -> None:
    """No gRPC here: the connection is closed."""


def _address(host: str) -> str:
    """The IP address to listen on. Raises Invalid for a name that has none here."""
    if not host:
        return ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise Invalid("metrics_host", host, f"an IP address or a name of this host: {error.strerror or error}") from error


async def _certificates(settings: Settings, address: str) -> Certificates:
    wanted = settings.metrics
    cert, key = Path(wanted.metrics_cert), Path(wanted.metrics_key)
    if not cert.exists() and not key.exists():
        await _sign(cert, key, [*dict.fromkeys((socket.gethostname(), "localhost", address or "127.0.0.1", "127.0.0.1"))])
    minimum, ciphers = tls_floor(settings.api)
    files = TlsFiles(
        cert=cert,
        key=key,
        minimum=minimum,
        ciphers=ciphers,
        names=("TLS of the metrics server", "metrics_cert"),
    )
    certificates = Certificates(files)
    await threads.files(certificates.load)
    return certificates


async def _sign(cert: Path, key: Path, names: list[str]) -> None:
    """Make both files. Raises ToolFailed."""
    argv = [sys.executable, "-I", "-m", "criollo.daemon.selfsigned", str(cert), str(key), *names]
    with explain(f"make a certificate at {cert}"):
        await process.run(process.Program(argv), what=f"cannot make a certificate at {cert}", timeout_s=60)
    log.info("made a certificate that is signed by itself", cert=cert, names=",".join(names))
