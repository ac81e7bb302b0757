"""What goes to which host, through the whole client: 429 storms, mirrors that lie or are dead, headers, certificates."""

import asyncio
import contextlib
import http.server
import os
import socket
import ssl
import threading
import time

import pytest
from support.asking import ask
from support.bad_registry import EMPTY_IMAGE, challenge, flip, redirect, run_bad_registry_of, status
from support.registry import DEAD_HOST, basic, make_certificate
from support.serving import Quiet, serving

from criollo.errors import Damaged, Invalid, NotFound, Unauthenticated, Unavailable
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_LAYER, Descriptor
from criollo.oci.reference import Reference
from criollo.registry.answers import Question
from criollo.registry.auth import Credentials
from criollo.registry.blobs import Route
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.lifeline import Lifeline
from criollo.registry.registries_conf import Mirror, Rule
from criollo.registry.turnstile import Limited

QUICK = Limits(
    **{"rounds": 3, "backoff_s": 0.001, "longest_wait_s": 5, "keep_s": 0.01},
    **{"limited_s": 20, "limited_backoff_s": 0.05},
)
CONTENT = bytes(range(256)) * 1024
ALICE = Credentials(username="alice", password="hunter2")


@pytest.fixture
def bad():
    with run_bad_registry_of(CONTENT) as registry:
        yield registry


@pytest.fixture
def mirror():
    with run_bad_registry_of(CONTENT, repository="m/team/app") as registry:
        yield registry


def using(hosts, work, limits=QUICK, environ=None):
    return ask(hosts, work, limits=limits, environ=environ)


def insecure(bad, *mirrors):
    listed = tuple(Mirror(location=f"{each}/m", insecure=True) for each in mirrors)
    return Hosts([Rule(prefix=bad.host, location=bad.host, insecure=True, mirror=listed)])


def ref_of(bad, text="team/app:v1"):
    return Reference.parse(f"{bad.host}/{text}")


def descriptor():
    return Descriptor(media_type=OCI_LAYER, digest=Digest.of(CONTENT), size=len(CONTENT))


async def fetch(client, bad, route=None):
    """The blob as it reached the sink."""
    sink = os.memfd_create("sink")
    try:
        await client.blob(ref_of(bad), descriptor(), sink, route=route)
        return os.pread(sink, len(CONTENT) + 1, 0)
    finally:
        os.close(sink)


# Too many requests ----------------------------------------------------------------------------------------------------


class Storm:
    """A registry that serves `first` requests, refuses what comes in the next second, and serves again."""

    def __init__(self, first):
        self.left, self.refused, self.early, self.closed_until = first, 0, 0, None
        self._lock = threading.Lock()

    def fault(self, handler, reply):
        with self._lock:
            now = time.monotonic()
            if self.closed_until is None and self.left:
                self.left -= 1
                return reply
            if self.closed_until is None:
                self.closed_until = now + 1
            if now >= self.closed_until:
                return reply
            self.refused += 1
        return status(429, Retry_After="1")(handler, reply)


def test_a_storm_of_pulls_asks_no_more_than_allowed(bad):
    """Ten pulls, six at a time: beyond the ten answers only those are refused that were on their way, and none twice."""
    storm = Storm(first=3)
    bad.break_at("/manifests/", storm.fault)

    async def work(client):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.manifest(ref_of(bad))) for _ in range(10)]
        return [task.result().digest for task in tasks]

    assert using(insecure(bad), work) == [EMPTY_IMAGE.digest] * 10
    assert 1 <= storm.refused <= 6
    assert len(bad.requests) == 10 + storm.refused


def test_a_wait_beyond_the_limit_is_told_and_kept_to(bad):
    bad.break_at("/manifests/", status(429, Retry_After="3600"))

    async def work(client):
        for _ in range(3):
            with pytest.raises(Limited, match=bad.host):
                await client.manifest(ref_of(bad))

    using(insecure(bad), work)
    assert len(bad.requests) == 1


def test_a_date_is_a_wait_too(bad):
    bad.break_at("/manifests/", status(429, Retry_After="Fri, 01 Jan 2999 00:00:00 GMT"))
    with pytest.raises(Limited) as caught:
        using(insecure(bad), lambda client: client.manifest(ref_of(bad)))
    assert caught.value.wait_s > 3600


@pytest.mark.parametrize("said", ["Fri, 01 Jan 1999 00:00:00 GMT", "-1", "soon", "٣", "", "1e9", "9" * 400])
def test_an_odd_retry_after_harms_nobody(bad, said):
    bad.break_at("/manifests/", status(429, Retry_After=said.encode().decode("latin-1")), times=1)
    with contextlib.suppress(Limited):
        assert using(insecure(bad), lambda client: client.manifest(ref_of(bad))).digest == EMPTY_IMAGE.digest


def test_a_limit_is_of_one_credential(bad):
    bad.break_at("/manifests/", status(429, Retry_After="3600"), times=1)

    async def work(client):
        with pytest.raises(Limited):
            await client.manifest(ref_of(bad))
        return await client.manifest(ref_of(bad), ALICE)

    assert using(insecure(bad), work).digest == EMPTY_IMAGE.digest


def test_a_limited_mirror_is_passed_over_without_waiting(bad, mirror):
    mirror.break_at("/", status(429, Retry_After="3600"))

    async def work(client):
        return [(await client.manifest(ref_of(bad))).source for _ in range(3)]

    assert using(insecure(bad, mirror.host), work) == [f"{bad.host}/team/app"] * 3
    assert len(mirror.requests) == 1


# Mirrors --------------------------------------------------------------------------------------------------------------


def test_a_mirror_that_sends_wrong_bytes_can_be_left_out(bad, mirror):
    mirror.break_at("/blobs/", flip(1000))
    route = Route()

    async def work(client):
        await client.manifest(ref_of(bad))
        with pytest.raises(Damaged):
            await fetch(client, bad, route)
        assert route.leave_out_mirrors_of(descriptor())
        return await fetch(client, bad, route)

    assert using(insecure(bad, mirror.host), work) == CONTENT
    assert len(mirror.asked("/blobs/")) == 1


def test_the_registry_itself_is_never_left_out(bad):
    bad.break_at("/blobs/", flip(1000))
    route = Route()

    async def work(client):
        with pytest.raises(Damaged):
            await fetch(client, bad, route)

    using(insecure(bad), work)
    assert not route.leave_out_mirrors_of(descriptor())


@pytest.mark.parametrize("fault", [flip(10), status(503), status(200, b"<html>")])
def test_a_mirror_with_a_wrong_manifest_is_passed_over(bad, mirror, fault):
    mirror.break_at("/manifests/", fault)
    digest = f"team/app@{EMPTY_IMAGE.digest}"
    found = using(insecure(bad, mirror.host), lambda client: client.manifest(ref_of(bad, digest)))
    assert found.source == f"{bad.host}/team/app"


def test_a_dead_mirror_is_not_asked_again_for_a_while(bad):
    async def work(client):
        await client.manifest(ref_of(bad))
        with run_on(taken) as requests:
            await client.manifest(ref_of(bad))
            return len(requests)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert using(insecure(bad, f"127.0.0.1:{taken.getsockname()[1]}"), work) == 0


@contextlib.contextmanager
def run_on(taken):
    """Something that listens where nothing did, and only notes who comes."""
    requests = []
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = taken
    server.server_activate()
    server.verify_request = lambda request, address: bool(requests.append(address))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_hosts(tmp_path, bad, text):
    directory = tmp_path / bad.host
    directory.mkdir(exist_ok=True)
    (directory / "hosts.toml").write_text(text)
    return Hosts(directories=[tmp_path])


def test_hosts_toml_is_followed_and_its_headers_stay_at_their_host(tmp_path, bad, mirror):
    mirror.add("team/app", "v1", EMPTY_IMAGE)
    mirror.break_at("/manifests/", redirect(f"{bad.url}/v2/team/app/manifests/v1"), times=1)
    hosts = write_hosts(
        tmp_path, bad, f'server = "{bad.url}"\n[host."{mirror.url}"]\n[host."{mirror.url}".header]\nX-Key = "hunter2"\n'
    )
    found = using(hosts, lambda client: client.manifest(ref_of(bad)))
    assert found.source.startswith(mirror.host)
    assert mirror.requests[0].path.endswith(f"?ns=127.0.0.1%3A{bad.host.partition(':')[2]}")
    assert mirror.requests[0].headers["x-key"] == "hunter2"
    assert "x-key" not in bad.requests[0].headers


def test_a_mirror_for_content_serves_the_blobs_of_a_tag_it_may_not_resolve(tmp_path, bad, mirror):
    mirror.add_blob("team/app", CONTENT)
    hosts = write_hosts(tmp_path, bad, f'server = "{bad.url}"\n[host."{mirror.url}"]\ncapabilities = ["pull"]\n')

    async def work(client):
        await client.manifest(ref_of(bad))
        return await fetch(client, bad)

    assert using(hosts, work) == CONTENT
    assert [request.path.partition("/blobs/")[1] for request in mirror.requests] == ["/blobs/"]
    assert bad.asked("/blobs/") == []


def test_a_mirror_of_hosts_toml_gets_no_password_of_the_registry(tmp_path, bad, mirror):
    mirror.break_at("/", challenge('Basic realm="x"'))
    bad.break_at("/", challenge('Basic realm="x"'), times=1)
    hosts = write_hosts(tmp_path, bad, f'server = "{bad.url}"\n[host."{mirror.url}"]\n')
    using(hosts, lambda client: client.manifest(ref_of(bad), ALICE))
    assert all("authorization" not in request.headers for request in mirror.requests)
    assert bad.requests[-1].headers["authorization"] == basic("alice", "hunter2")


def test_a_newer_token_of_another_transfer_is_used(bad):
    """Two transfers meet a 401 with an old permit: the second takes what the first has learnt, and asks nobody."""
    bad.break_at("/manifests/", challenge('Basic realm="x"'), times=1)

    async def work(client):
        await client.manifest(ref_of(bad), ALICE)
        bad.break_at("/manifests/", challenge('Basic realm="x"'), times=1)
        return await client.manifest(ref_of(bad), ALICE)

    assert using(insecure(bad), work).digest == EMPTY_IMAGE.digest


def test_a_probe_asks_once_and_without_a_body(bad):
    async def work(client):
        (endpoint,) = client.hosts.endpoints(ref_of(bad))
        return await client.probe(ref_of(bad), endpoint)

    assert using(insecure(bad), work).digest == EMPTY_IMAGE.digest
    assert [request.method for request in bad.requests] == ["HEAD"]


@pytest.mark.parametrize(
    ("fault", "error"), [(status(404), NotFound), (status(401), Unauthenticated), (status(500), Unavailable)]
)
def test_a_probe_tells_the_failure_and_does_not_insist(bad, fault, error):
    bad.break_at("/manifests/", fault)

    async def work(client):
        (endpoint,) = client.hosts.endpoints(ref_of(bad))
        with pytest.raises(error):
            await client.probe(ref_of(bad), endpoint)

    using(insecure(bad), work)
    assert len(bad.requests) == 1


# Certificates ---------------------------------------------------------------------------------------------------------


class _Hello(Quiet):
    def do_HEAD(self):
        self.answer(200, headers={"Docker-Content-Digest": (self.connection.getpeercert() and "known") or "unknown"})


@contextlib.contextmanager
def tls_server(directory, *, clients=None):
    """A TLS server on 127.0.0.1 whose certificate is `server.crt`; with `clients` it wants certificates signed by that."""
    authority = make_certificate(directory, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, directory / "server.key")
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)

    class Handler(_Hello):
        def setup(self):
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self):
            super().finish()
            self.request.close()

    with serving(Handler) as port:
        yield f"127.0.0.1:{port}", authority


def probe(host, directories):
    async def work(client):
        ref = Reference.parse(f"{host}/x")
        (endpoint,) = client.hosts.endpoints(ref)
        return (await client.probe(ref, endpoint)).digest

    return using(Hosts(directories=directories), work)


def test_an_authority_of_certs_d_is_trusted_for_its_host_only(tmp_path):
    with tls_server(tmp_path) as (host, authority):
        with pytest.raises(Unavailable, match="certificate is refused"):
            probe(host, [tmp_path / "certs"])
        place = tmp_path / "certs" / host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(authority.read_bytes())
        assert probe(host, [tmp_path / "certs"]) == "unknown"
        with tls_server(tmp_path) as (other, _), pytest.raises(Unavailable, match="certificate is refused"):
            probe(other, [tmp_path / "certs"])


def test_a_mirror_is_verified_though_another_table_marks_its_host_insecure(bad, tmp_path):
    with tls_server(tmp_path) as (host, _):
        tables = [
            Rule(prefix=bad.host, location=bad.host, insecure=True, mirror=(Mirror(location=host),)),
            Rule(prefix=host, location=host, insecure=True),
        ]
        ref = ref_of(bad)

        async def work(client):
            with pytest.raises(Unavailable, match="certificate is refused"):
                await client.probe(ref, client.hosts.endpoints(ref)[0])
            own = Reference.parse(f"{host}/x")
            return (await client.probe(own, client.hosts.endpoints(own)[0])).digest

        assert using(Hosts(tables), work) == "unknown"


def test_a_client_certificate_is_shown_and_renewed_without_a_restart(tmp_path):
    clients = make_certificate(tmp_path, "client")
    with tls_server(tmp_path, clients=clients) as (host, authority):
        place = tmp_path / "certs" / host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(authority.read_bytes())
        stranger = make_certificate(tmp_path, "stranger")

        def install(certificate):
            (place / "me.cert").write_bytes(certificate.read_bytes())
            (place / "me.key").write_bytes(certificate.with_suffix(".key").read_bytes())

        async def work(client):
            ref = Reference.parse(f"{host}/x")
            (endpoint,) = client.hosts.endpoints(ref)
            install(stranger)
            with pytest.raises(Unavailable):
                await client.probe(ref, endpoint)
            install(clients)
            return (await client.probe(ref, endpoint)).digest

        assert using(Hosts(directories=[tmp_path / "certs"]), work) == "known"


def half_renewed(tmp_path, host, authority, *, renewed):
    """A directory of certificates where the certificate is that of `renewed`, and the key still another one's."""
    place = tmp_path / "certs" / host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(authority.read_bytes())
    (place / "me.cert").write_bytes(renewed.read_bytes())
    (place / "me.key").write_bytes(make_certificate(tmp_path, "before").with_suffix(".key").read_bytes())
    return place


def hello(host):
    """Says whether the host knows our certificate; what may pass is waited for."""

    def talk(exchange, endpoint):
        answer = exchange.ask(Question(endpoint=endpoint, path="", method="HEAD"))
        answer.close()
        return answer.headers["Docker-Content-Digest"]

    return lambda client: client.converse(Reference.parse(f"{host}/x"), talk)


def test_a_key_that_is_renewed_a_moment_after_its_certificate_is_waited_for(tmp_path, monkeypatch):
    clients = make_certificate(tmp_path, "client")
    with tls_server(tmp_path, clients=clients) as (host, authority):
        place = half_renewed(tmp_path, host, authority, renewed=clients)
        pause = Lifeline.pause

        def meanwhile(lifeline, seconds):
            (place / "me.key").write_bytes(clients.with_suffix(".key").read_bytes())
            pause(lifeline, seconds)

        monkeypatch.setattr(Lifeline, "pause", meanwhile)
        assert using(Hosts(directories=[tmp_path / "certs"]), hello(host)) == "known"


def test_a_key_that_stays_another_ones_is_named(tmp_path):
    clients = make_certificate(tmp_path, "client")
    with tls_server(tmp_path, clients=clients) as (host, authority):
        half_renewed(tmp_path, host, authority, renewed=clients)
        with pytest.raises(Unavailable, match=r"me\.cert: .*me\.key is not its key; install"):
            using(Hosts(directories=[tmp_path / "certs"]), hello(host))


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_an_unusable_certificate_is_named(tmp_path, content):
    place = tmp_path / "certs" / "r.example"
    place.mkdir(parents=True)
    (place / "me.key").write_bytes(b"hunter2")
    (place / "me.cert").write_bytes(content or b"")
    if content is None:
        (place / "me.cert").chmod(0)
    with pytest.raises(Invalid, match=r"me\.cert") as caught:
        probe("r.example", [tmp_path / "certs"])
    assert "hunter2" not in str(caught.value)


# Proxies --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connect_proxy(to):
    """A proxy that leads every CONNECT to one place; yields its address and what it was asked."""
    asked = []

    class Handler(Quiet):
        def do_CONNECT(self):
            asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
            self.send_response(200)
            self.end_headers()
            with socket.create_connection((to.rpartition(":")[0], int(to.rpartition(":")[2]))) as there:
                back = threading.Thread(target=pipe, args=(there, self.connection))
                back.start()
                pipe(self.connection, there)
                back.join()
            self.close_connection = True

    def pipe(source, sink):
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)

    with serving(Handler) as port:
        yield f"127.0.0.1:{port}", asked


def through_proxy(proxy, no_proxy=""):
    async def work(client):
        ref = Reference.parse("r.example:5000/x")
        (endpoint,) = client.hosts.endpoints(ref)
        return (await client.probe(ref, endpoint)).digest

    rules = [Rule(prefix="r.example:5000", location="r.example:5000", insecure=True)]
    environ = {f"{kind}_PROXY": f"http://bob:hunter2@{proxy}" for kind in ("HTTPS", "HTTP")} | {"NO_PROXY": no_proxy}
    return using(Hosts(rules), work, environ=environ)


def test_a_proxy_stands_between_and_alone_sees_its_password(tmp_path):
    with tls_server(tmp_path) as (host, _), connect_proxy(host) as (proxy, asked):
        assert through_proxy(proxy) == "unknown"
    assert asked == [("r.example:5000", basic("bob", "hunter2"))]


@pytest.mark.parametrize("exceptions", ["r.example", ".example", "r.example:5000", "*", "x,r.example"])
def test_an_excepted_host_is_asked_directly(tmp_path, exceptions):
    with tls_server(tmp_path) as (host, _), connect_proxy(host) as (proxy, asked):
        with pytest.raises(Unavailable, match="does not resolve") as caught:
            through_proxy(proxy, exceptions)
        assert "hunter2" not in str(caught.value)
    assert asked == []


def test_a_dead_proxy_is_named_without_its_password():
    with pytest.raises(Unavailable, match="through proxy http://127") as caught:
        through_proxy(DEAD_HOST)
    assert "hunter2" not in str(caught.value)
