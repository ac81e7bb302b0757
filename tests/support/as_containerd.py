"""One question put to containerd and to us: an image by the same certs.d, and what each server was asked for.

    with run_servers(directory) as servers:
        servers.fill(image)
        theirs = outcome(servers, lambda: ctr_fetches(containerd, servers, "r.example", certs_d))
        ours = outcome(servers, lambda: we_fetch(servers, hosts, "r.example"))

Names of hosts that do not exist lead to servers of ours by a proxy; nothing leaves the loopback.
"""

import contextlib
import functools
import os
import select
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from support.asking import ask
from support.bad_registry import BadRegistry, Handler, Reply, Request
from support.containerd import Containerd
from support.images import Image, Layer
from support.serving import Quiet, serving

from criollo.errors import CriolloError
from criollo.oci import image_spec
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.uploads import Uploads

REPOSITORY: Final = "team/app"
TAG: Final = "v1"
WATCHED: Final = ("x-one", "x_two", "authorization")
_PATIENCE_S: Final = 60
_ONCE: Final = Limits(connect_s=60, idle_s=60, document_s=60, rounds=1, backoff_s=0.001, keep_s=0.01)
_PIECE: Final = 64 << 10


class Outcome(NamedTuple):
    """Whether the image was fetched; who was asked for its tag, in order; who gave its layer; headers as they arrived.

    A server that was asked as a mirror of another has `'` after its label, and its path if that is not the usual one.
    """

    is_fetched: bool
    named: str
    layer: str
    headers: str = ""


class Event(NamedTuple):
    label: str
    request: Request
    status: int


@dataclass
class Servers:
    """Hosts by their labels, their certificates, and what they were asked, in one order."""

    directory: Path
    hosts: dict[str, str] = field(default_factory=dict)
    registries: dict[str, BadRegistry] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    proxy: str = ""

    def fill(self, image: Image) -> None:
        for label, registry in self.registries.items():
            if label != "e":
                registry.add(REPOSITORY, TAG, image)

    @property
    def environ(self) -> dict[str, str]:
        return {"HTTPS_PROXY": f"http://{self.proxy}", "NO_PROXY": "127.0.0.1,::1,localhost"}


@contextlib.contextmanager
def run_servers(directory: Path) -> Iterator[Servers]:
    """`m`, `n` and `s` have the image, `e` has nothing, `six` is `m` at ::1, all by plain HTTP; `t` speaks TLS, `c` wants the
    certificate `me` too; `r` is r.example, `k` is k.example and wants `me`; `dead` answers nobody, and no connection to `full`
    ever comes about. The certificates are `<label>.crt` and `<label>.key` in the directory, `me.pem` holds both."""
    servers = Servers(directory)
    alternatives = {"t": "IP:127.0.0.1", "c": "IP:127.0.0.1", "r": "DNS:r.example", "k": "DNS:k.example"}
    for name, alternative in {**alternatives, "me": "DNS:me", "other": "DNS:other"}.items():
        _make_pair(directory, name, alternative)
    (directory / "me.pem").write_bytes((directory / "me.crt").read_bytes() + (directory / "me.key").read_bytes())
    with contextlib.ExitStack() as stack:
        for label in ("m", "n", "s", "e"):
            _start(servers, stack, label)
        for label in alternatives:
            _start(servers, stack, label, _context(directory, label, is_guarded=label in ("c", "k")))
        names = {f"{label}.example:443": servers.hosts[label] for label in ("r", "k")}
        servers.proxy = f"127.0.0.1:{stack.enter_context(_run_proxy(names))}"
        servers.hosts["dead"] = stack.enter_context(_dead())
        servers.hosts["full"] = stack.enter_context(full_queue())
        servers.hosts["six"] = stack.enter_context(_at_six(servers.hosts["m"]))
        yield servers


def outcome(servers: Servers, fetch: Callable[[], bool]) -> Outcome:
    """What came of it."""
    servers.events.clear()
    is_fetched = fetch()
    events = list(servers.events)
    named = [_shown(event) for event in events if event.request.path.partition("?")[0].endswith(f"/manifests/{TAG}")]
    layers = [event.label for event in events if "/blobs/" in event.request.path and event.status == 200]
    headers = {
        f"{event.label}:{name}={value}"
        for event in events
        for name, value in event.request.headers.items()
        if name in WATCHED or (name == "user-agent" and value.startswith("custom"))
    }
    last = layers[-1] if is_fetched and layers else ""
    return Outcome(is_fetched, " ".join(dict.fromkeys(named)), last, " ".join(sorted(headers)))


def asked(servers: Servers, push: Callable[[], object]) -> str:
    """Whom a push talks to."""
    servers.events.clear()
    push()
    return " ".join(dict.fromkeys(event.label for event in servers.events))


def ctr_fetches(containerd: Containerd, servers: Servers, domain: str, certs_d: Path) -> bool:
    """Whether containerd's client does; why not is printed."""
    return _ctr(containerd, servers, certs_d, ["fetch"], [f"{domain}/{REPOSITORY}:{TAG}"])


def ctr_pushes(containerd: Containerd, servers: Servers, domain: str, certs_d: Path, layer: Layer) -> bool:
    """The same for a layer that it has."""
    return _ctr(containerd, servers, certs_d, ["push-object"], [f"{domain}/{REPOSITORY}:{TAG}", layer.digest, layer.media_type])


def _ctr(containerd: Containerd, servers: Servers, certs_d: Path, verb: list[str], operands: list[str]) -> bool:
    argv = ["ctr", "-a", str(containerd.socket), "-n", "hosts", "content", *verb, "--hosts-dir", str(certs_d), *operands]
    env = {"PATH": os.environ["PATH"], **servers.environ}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env, check=False)
    print("containerd:", done.stderr[-800:])
    return done.returncode == 0


def we_fetch(servers: Servers, hosts: Callable[[], Hosts], domain: str) -> bool:
    """Whether we do, manifest and blobs; `hosts` reads the files, and what it raises counts. Why not is printed."""

    async def fetch(client: Registry, ref: Reference) -> None:
        found = await client.manifest(ref)
        manifest = image_spec.decode_manifest(found.raw, found.media_type)
        assert isinstance(manifest, image_spec.Manifest)
        for blob in (manifest.config, *manifest.layers):
            with tempfile.TemporaryFile() as sink:
                await client.blob(ref, blob, sink.fileno())

    return _ours(servers, hosts, domain, fetch)


def we_push(servers: Servers, hosts: Callable[[], Hosts], domain: str, layer: Layer) -> bool:
    """The same for a layer: it is there already, which is all that is asked."""

    async def push(client: Registry, ref: Reference) -> None:
        assert await Uploads(client, ref).size_of(Digest(layer.digest)) is not None

    return _ours(servers, hosts, domain, push)


def _ours(
    servers: Servers, hosts: Callable[[], Hosts], domain: str, work: Callable[[Registry, Reference], Awaitable[None]]
) -> bool:
    ref = Reference.parse(f"{domain}/{REPOSITORY}:{TAG}")
    try:
        ask(hosts(), lambda client: work(client, ref), limits=_ONCE, environ=servers.environ)
    except CriolloError as error:
        print("ours:", error)
        return False
    return True


@functools.cache
def containerd_version() -> tuple[int, ...]:
    text = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return tuple(int("".join(filter(str.isdecimal, each))) for each in text.lstrip("v").partition("~")[0].split(".")[:2])


def _shown(event: Event) -> str:
    path, _, query = event.request.path.partition("?")
    base = path.partition(f"/{REPOSITORY}/")[0]
    mirror = "'" if "ns" in parse_qs(query) else ""
    return f"{event.label}{mirror}{'' if base == '/v2' else base or '/'}"


class _Watched(BadRegistry):
    """Has its content below any path before the repository, and writes down who was asked for it."""

    def __init__(self, label: str, servers: Servers) -> None:
        super().__init__()
        self._label, self._servers = label, servers

    def reply_to(self, request: Request) -> tuple[Reply, Any]:
        reply, fault = super().reply_to(request)
        self._servers.events.append(Event(self._label, request, reply.status))
        return reply, fault

    def _honest(self, request: Request) -> Reply:
        below = request.path.partition(f"/{REPOSITORY}/")[2]
        return super()._honest(Request(request.method, f"/v2/{REPOSITORY}/{below}", request.headers))


def _start(servers: Servers, stack: contextlib.ExitStack, label: str, context: ssl.SSLContext | None = None) -> None:
    registry = _Watched(label, servers)

    class Served(Handler):
        default_request_version = "HTTP/1.0"  # what is no HTTP is answered with a status line, as servers in Go do

        def setup(self) -> None:
            self.request.settimeout(_PATIENCE_S)
            if context is not None:
                self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

    Served.registry = registry
    registry.host = f"127.0.0.1:{stack.enter_context(serving(Served))}"
    servers.hosts[label] = registry.host
    servers.registries[label] = registry


def _make_pair(directory: Path, name: str, alternative: str) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"]
    argv += ["-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.crt")]
    subprocess.run(argv, check=True, capture_output=True)


def _context(directory: Path, name: str, *, is_guarded: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    if is_guarded:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(directory / "me.crt")
    return context


@contextlib.contextmanager
def _run_proxy(names: dict[str, str]) -> Iterator[int]:
    """A proxy that leads names to servers of this node, and others nowhere."""

    class Proxy(Quiet):
        timeout = _PATIENCE_S

        def do_CONNECT(self) -> None:
            if self.path not in names:
                self.send_error(502)
                return
            host, _, port = names[self.path].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=_PATIENCE_S) as there:
                self.send_response(200)
                self.end_headers()
                _relay(self.connection, there)

    with serving(Proxy) as port:
        yield port


def _relay(here: socket.socket, there: socket.socket) -> None:
    """Carry bytes both ways until either side ends, or is silent for long."""
    while ready := select.select([here, there], [], [], _PATIENCE_S)[0]:
        for sock in ready:
            piece = sock.recv(_PIECE)
            if not piece:
                return
            (there if sock is here else here).sendall(piece)


@contextlib.contextmanager
def _dead() -> Iterator[str]:
    """An address that is taken, where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def full_queue() -> Iterator[str]:
    """An address whose queue of connections is full: a further one waits for ever."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def _at_six(host: str) -> Iterator[str]:
    """The same server at an IPv6 address; empty on a node that has none."""

    class Passage(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            address, _, port = host.rpartition(":")
            with socket.create_connection((address, int(port)), timeout=_PATIENCE_S) as there:
                _relay(self.request, there)

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        daemon_threads = False

    try:
        server = Server(("::1", 0), Passage)
    except OSError:
        yield ""
        return
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"[::1]:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
