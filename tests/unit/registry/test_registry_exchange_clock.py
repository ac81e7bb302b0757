"""A node whose clock is wrong, or is set while it works: what lasts so and so long lasts as long, and a certificate's dates are
told with the time they were held against."""

import contextlib
import datetime
import itertools
import ssl
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.asking import ask
from support.bad_registry import challenge, run_bad_registry, status
from support.images import make_image
from support.registry import DEAD_HOST
from support.serving import Quiet, serving

from criollo.errors import Unavailable
from criollo.oci.reference import Reference
from criollo.registry import client as client_module
from criollo.registry import exchange, turnstile
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Mirror, Rule
from criollo.registry.turnstile import Limited

YEAR_S = 365 * 86400
IMAGE = make_image([[]])
LIMITS = Limits(**{"rounds": 3, "backoff_s": 0.001, "longest_wait_s": 30, "keep_s": 0.01, "limited_backoff_s": 0.05})
CLOCKS = {
    "a year ahead": itertools.repeat(YEAR_S),
    "a year back": itertools.repeat(-YEAR_S),
    "leaping": itertools.cycle((YEAR_S, -YEAR_S, 0)),
}


@pytest.fixture(params=CLOCKS)
def clock(request, monkeypatch):
    """The time of day, wrong in each way."""
    now, off_by = time.time, CLOCKS[request.param]
    monkeypatch.setattr(time, "time", lambda: now() + next(off_by))


@pytest.fixture
def passing(monkeypatch):
    """For what the client has learnt, no time passes but this."""
    begun, passed = time.monotonic(), [0.0]
    for module in (exchange, turnstile, client_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: begun + passed[0]))

    def add(seconds):
        passed[0] += seconds

    return add


@pytest.fixture
def bad():
    with run_bad_registry() as registry:
        registry.add("team/app", "v1", IMAGE)
        registry.add_manifest("x", "token", "application/json", b'{"token":"tok","expires_in":300}')
        yield registry


def using(hosts, work):
    return ask(hosts, work, limits=LIMITS)


def insecure(bad, *mirrors):
    listed = tuple(Mirror(location=f"{each}/m", insecure=True) for each in mirrors)
    return Hosts([Rule(prefix=bad.host, location=bad.host, insecure=True, mirror=listed)])


def ref_of(bad):
    return Reference.parse(f"{bad.host}/team/app:v1")


# What lasts for a while -----------------------------------------------------------------------------------------------


def test_a_token_lasts_as_long_as_its_server_says(bad, clock, passing):
    """It is shown, and asked for anew before its end, not before and not because the clock was set."""
    wants = challenge(f'Bearer realm="{bad.url}/v2/x/manifests/token"')

    async def work(client):
        bad.break_at("/team/", wants, times=1)
        for _ in range(3):
            await client.manifest(ref_of(bad))
        assert len(bad.asked("/token")) == 1
        passing(290)
        await client.manifest(ref_of(bad))
        assert bad.requests[-1].headers["authorization"] == "Bearer tok"
        passing(6)
        bad.break_at("/team/", wants, times=1)
        await client.manifest(ref_of(bad))
        assert "authorization" not in bad.requests[-3].headers
        assert len(bad.asked("/token")) == 2

    using(insecure(bad), work)


def test_a_dead_mirror_is_left_out_for_30_seconds(bad, clock, passing):
    dead = DEAD_HOST

    async def work(client):
        asked = []
        request = client._connections.request

        def noted(method, url, **rest):
            asked.append(url)
            return request(method, url, **rest)

        client._connections.request = noted
        counts = []
        for seconds in (0, 29, 2):
            passing(seconds)
            asked.clear()
            await client.manifest(ref_of(bad))
            counts.append(sum(dead in each for each in asked) > 0)
        return counts

    assert using(insecure(bad, dead), work) == [True, False, True]


def test_a_closed_registry_is_asked_again_after_five_minutes_at_the_latest(bad, clock, passing):
    bad.break_at("/team/", status(429, Retry_After=str(YEAR_S)), times=1)

    async def work(client):
        for seconds in (0, 260):
            passing(seconds)
            with pytest.raises(Limited):
                await client.manifest(ref_of(bad))
        assert len(bad.requests) == 1
        passing(41)
        return (await client.manifest(ref_of(bad))).digest

    assert using(insecure(bad), work) == IMAGE.digest


def test_a_date_to_come_back_at_is_by_the_clock_of_the_registry(bad, clock):
    """Its own is in its answer. A node whose clock is behind would else not ask again for minutes."""

    def later(handler, reply):
        right = datetime.datetime.now(datetime.UTC).timestamp()
        handler.date_time_string = lambda: formatdate(right, usegmt=True)
        return status(429, Retry_After=formatdate(right + 1, usegmt=True))(handler, reply)

    bad.break_at("/team/", later, times=1)
    assert using(insecure(bad), lambda client: client.manifest(ref_of(bad))).digest == IMAGE.digest
    assert len(bad.requests) == 2


# Certificates ---------------------------------------------------------------------------------------------------------


def write_certificate(directory, days):
    """A certificate for 127.0.0.1 that is good from the first to the second of `days`, counted from today."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begins, ends = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=each) for each in days)
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.key").write_bytes(private)
    (directory / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@contextlib.contextmanager
def tls_server(directory):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")

    class Handler(Quiet):
        def handle(self):
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as wrapped:
                wrapped.recv(1)

    with serving(Handler) as port:
        yield f"localhost:{port}"


@pytest.mark.parametrize(("days", "cause"), [((365, 730), "is not yet valid"), ((-730, -365), "has expired")])
def test_a_certificate_of_another_time_is_told_with_the_clock(tmp_path, days, cause):
    write_certificate(tmp_path, days)
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-")
    with tls_server(tmp_path) as host:
        place = tmp_path / "certs" / host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes((tmp_path / "server.crt").read_bytes())
        with pytest.raises(Unavailable, match=f"certificate {cause}") as told:
            using(Hosts(directories=[tmp_path / "certs"]), lambda client: client.manifest(Reference.parse(f"{host}/x")))
    assert "by this node's clock: set it" in str(told.value)
    assert f"it is {today}" in str(told.value)
    assert "add its CA" not in str(told.value)
