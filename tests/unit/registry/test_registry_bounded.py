"""registry.bounded: every answer ends, whatever a server sends around its content."""

import contextlib
import itertools
import socket
import threading
from http.client import HTTPException

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bad_registry import drip_bytes, endless_bytes, run_bad_registry
from support.images import make_image
from test_registry_client import IMPATIENT, QUICK, using

from criollo.errors import Unavailable
from criollo.oci.reference import Reference
from criollo.registry.bounded import FRAMING_BYTES, BoundedResponse, Endless
from criollo.registry.registries_conf import Rule

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(sent, *, piece=1 << 16, limit_s=60.0, interval_s=0.0):
    """What an answer of these bytes holds; they come in pieces, and the connection stays open until it is read."""
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def write():
        with contextlib.suppress(OSError):
            for each in sent:
                for at in range(0, len(each), piece):
                    theirs.sendall(each[at : at + piece])
                    if done.wait(interval_s) and interval_s:
                        return
            theirs.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    ours.settimeout(limit_s)
    with ours, theirs:
        writer.start()
        try:
            with BoundedResponse(ours, method="GET") as answer:
                ours.settimeout(60)  # one byte may take its time; all of them have the limit
                answer.begin()
                return b"".join(iter(lambda: answer.read1(1000), b""))
        finally:
            done.set()
            ours.close()
            theirs.close()
            writer.join()


def chunked(*pieces):
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=5), st.integers(1, 2000))
def test_content_is_what_was_sent(pieces, piece):
    content = b"".join(pieces)
    assert read([chunked(*pieces)], piece=piece) == content
    assert read([OK + b"Content-Length: %d\r\n\r\n" % len(content) + content], piece=piece) == content


def test_content_of_any_length_passes():
    size = 4 * FRAMING_BYTES
    assert len(read([OK + b"Content-Length: %d\r\n\r\n" % size, bytes(size)])) == size


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
        (CHUNKED + b"0\r\n", b"X-Trailer: y\r\n"),
        (CHUNKED + b"0\r\n", b"X-Trailer: " + b"y" * 60_000 + b"\r\n"),
    ],
    ids=["interim answers", "interim headers", "trailers", "long trailers"],
)
def test_framing_without_end_ends(first, again):
    with pytest.raises(Endless):
        read(itertools.chain([first], itertools.repeat(again * 100)))


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (OK, b"X: y\r\n"),
        (OK, b"x" * 70_000),
        (b"", b"x" * 70_000),
        (CHUNKED, b"0" * 70_000),
        (CHUNKED, b"5;" + b"x" * 70_000),
    ],
    ids=["headers", "long header", "long status", "chunk size", "chunk extension"],
)
def test_lines_without_end_end(first, again):
    with pytest.raises(HTTPException):
        read(itertools.chain([first], itertools.repeat(again)))


@pytest.mark.parametrize("sent", [OK + b"X: " + b"y" * 100, b"HTTP/1.1 100 Continue\r\n\r\n" * 5, CHUNKED + b"0" * 60])
def test_framing_in_drops_ends_at_the_limit(sent):
    with pytest.raises(TimeoutError, match="small pieces"):
        read([sent], piece=1, limit_s=0.2, interval_s=0.01)


@pytest.mark.parametrize(
    ("fault", "said", "limits"),
    [
        (endless_bytes(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "without end", QUICK),
        (endless_bytes(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"), "without end", QUICK),
        (drip_bytes(OK, b"X: y\r\n", 0.02), "no answer", IMPATIENT),
        (drip_bytes(CHUNKED, b"0", 0.02), "no byte", IMPATIENT),
    ],
    ids=["interim answers", "trailers", "dripped headers", "dripped chunk size"],
)
def test_a_transfer_ends_and_says_why(fault, said, limits):
    with run_bad_registry() as bad:
        bad.add("team/app", "v1", make_image([[]]))
        bad.break_at("/manifests/", fault)
        rules = [Rule(prefix=bad.host, location=bad.host, insecure=True)]
        with pytest.raises(Unavailable, match=said):
            using(rules, lambda client: client.manifest(Reference.parse(f"{bad.host}/team/app:v1")), limits)
