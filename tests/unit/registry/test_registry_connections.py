"""Connections that are kept: whose they are, what happens when their server gave them up, and when nobody needs them."""

import contextlib
import ssl

import pytest
from support.asking import ask
from support.bad_registry import EMPTY_IMAGE, cut_at_once, run_bad_registry_of
from support.registry import make_certificate
from support.serving import Quiet, serving

from criollo.oci.reference import Reference
from criollo.registry import connections
from criollo.registry.connections import CHUNK_BYTES, Connections, Limits, Unreachable, held_by
from criollo.registry.hosts import Hosts
from criollo.registry.lifeline import Aborted, Lifeline
from criollo.registry.registries_conf import Rule

LIMITS = Limits(connect_s=60)
CONTENT = bytes(range(256)) * 64


@pytest.fixture
def bad():
    with run_bad_registry_of(CONTENT) as registry:
        yield registry


@pytest.fixture
def lifeline():
    with Lifeline() as held:
        held_by(held)
        yield held


@pytest.fixture
def known():
    found = Connections(LIMITS, {})
    yield found
    found.close_idle()


def whole(answer):
    """The body; its connection is kept then."""
    body = b""
    while chunk := answer.read1(CHUNK_BYTES):
        body += chunk
    answer.release_conn()
    return body


def get(known, url, method="GET", body=None):
    return known.request(method, url, headers={}, insecure=True, body=body)


def blob_of(bad):
    return f"{bad.url}/v2/team/app/blobs/{bad.add_blob('team/app', CONTENT)}"


# A kept connection that its server gave up ----------------------------------------------------------------------------


class Peers:
    """Where requests came from; those from `given_up` get no answer."""

    def __init__(self, bad):
        self.seen, self.given_up = [], set()
        bad.break_at("", self._note)

    def _note(self, handler, reply):
        self.seen.append(handler.client_address[1])
        return cut_at_once()(handler, reply) if handler.client_address[1] in self.given_up else reply


def test_what_was_asked_on_it_is_asked_again_at_once_on_a_new_one(bad, known, lifeline):
    """However many are kept: they were all given up, as by a server that began anew."""
    peers = Peers(bad)
    answers = [get(known, blob_of(bad)) for _ in range(3)]
    assert [whole(answer) for answer in answers] == [CONTENT] * 3
    peers.given_up = set(peers.seen)
    assert len(peers.given_up) == 3
    assert whole(get(known, blob_of(bad))) == CONTENT
    assert len(peers.seen) == 5
    assert peers.seen[3] in peers.given_up
    assert peers.seen[4] not in peers.given_up


def test_a_new_one_that_is_cut_is_a_failure(bad, known, lifeline):
    bad.break_at("/blobs/", cut_at_once())
    with pytest.raises(Unreachable, match="broke off the connection"):
        get(known, blob_of(bad))
    assert len(bad.requests) == 1


def test_two_in_a_row_are_a_failure(bad, known, lifeline):
    assert whole(get(known, blob_of(bad))) == CONTENT
    bad.break_at("/blobs/", cut_at_once())
    with pytest.raises(Unreachable, match="broke off the connection"):
        get(known, blob_of(bad))
    assert len(bad.requests) == 3


def test_what_has_a_body_is_its_owners_to_send_again(known, lifeline):
    """It may be a pipe, and nobody knows how much of it was taken."""
    asked = []

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.client_address)
            if len(asked) == 1:
                self.answer(201)
            else:
                self.close_connection = True

    with serving(Handler) as port:
        assert whole(get(known, f"http://127.0.0.1:{port}/", "PUT", b"x")) == b""
        with pytest.raises(Unreachable):
            get(known, f"http://127.0.0.1:{port}/", "PUT", b"x")
    assert len(asked) == 2
    assert asked[0] == asked[1]


@contextlib.contextmanager
def tls_server(directory, asked):
    """A server over TLS that gives a connection up, without a word, at its second request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(directory, "server"), directory / "server.key")

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def setup(self):
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self):
            super().finish()
            self.request.close()

        def do_GET(self):
            asked.append(self.client_address)
            self.close_connection = asked.count(self.client_address) == 2
            if not self.close_connection:
                self.answer(200, b"ok")

    with serving(Handler) as port:
        yield f"https://127.0.0.1:{port}/"


def test_the_same_over_tls(known, lifeline, tmp_path):
    asked = []
    with tls_server(tmp_path, asked) as url:
        assert [whole(get(known, url)) for _ in range(2)] == [b"ok", b"ok"]
        known.close_idle()
    assert len(asked) == 3
    assert asked[0] == asked[1] != asked[2]


def test_a_pull_does_not_notice(bad):
    """One round is all that it has, and the host is still known to speak plain HTTP."""
    hosts = Hosts([Rule(prefix=bad.host, location=bad.host, insecure=True)])
    ref = Reference.parse(f"{bad.host}/team/app:v1")

    async def work(client):
        first = await client.manifest(ref)
        bad.break_at("/manifests/", cut_at_once(), times=1)
        again = await client.manifest(ref)
        return first.digest, again.digest, dict(client._exchange._schemes)

    assert ask(hosts, work, limits=Limits(rounds=1, connect_s=60)) == (
        EMPTY_IMAGE.digest,
        EMPTY_IMAGE.digest,
        {bad.host: "http"},
    )


# Whose a connection is ------------------------------------------------------------------------------------------------


def test_a_transfer_that_ends_does_not_cut_a_connection_that_it_gave_back(bad, known):
    """It goes on to something else, such as a pause, while another transfer has that connection."""
    with Lifeline() as first, Lifeline() as second:
        held_by(first)
        assert whole(get(known, blob_of(bad))) == CONTENT
        held_by(second)
        answer = get(known, blob_of(bad))
        first.abort()
        assert whole(answer) == CONTENT
    assert len(bad.requests) == 2


def test_a_transfer_that_ends_cuts_the_connection_that_it_took_over(bad, known, lifeline):
    assert whole(get(known, blob_of(bad))) == CONTENT
    with Lifeline() as second:
        held_by(second)
        answer = get(known, blob_of(bad))
        second.abort()
        with pytest.raises(Aborted):
            get(known, blob_of(bad))
        answer.close()


# Idle ones ------------------------------------------------------------------------------------------------------------


def test_closing_idle_ones_leaves_those_alone_who_are_about_to_ask(bad, known, lifeline, monkeypatch):
    """Such as when the pools of another certificate push these out."""
    assert whole(get(known, blob_of(bad))) == CONTENT
    find = connections._Keeping._get_conn

    def too_late(self, timeout=None):
        known.close_idle()
        return find(self, timeout)

    monkeypatch.setattr(connections._Keeping, "_get_conn", too_late)
    answer = get(known, blob_of(bad))
    known.close_idle()
    assert whole(answer) == CONTENT


def test_idle_ones_are_closed(bad, known, lifeline):
    peers = Peers(bad)
    for _ in range(2):
        whole(get(known, blob_of(bad)))
    known.close_idle()
    whole(get(known, blob_of(bad)))
    assert peers.seen[0] == peers.seen[1] != peers.seen[2]
