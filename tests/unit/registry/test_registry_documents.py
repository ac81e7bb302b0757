"""registry.documents: one small document of a server, and what a server may not do."""

import pytest
from support.asking import ask
from support.registry import DEAD_HOST
from support.serving import Quiet, serving

from criollo.errors import Invalid, Unavailable
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts

QUICK = Limits(rounds=2, backoff_s=0.01, longest_wait_s=1)


class Handler(Quiet):
    """`/<status>` answers so; `/to/<rest>` redirects there; `/text` is five bytes."""

    asked: list[tuple[str, dict[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        status = int(self.path[1:]) if self.path[1:].isdecimal() else 302 if self.path.startswith("/to/") else 200
        headers = {"Location": self.path.removeprefix("/to/")} if status == 302 else {}
        self.answer(status, b"hello" if status == 200 else b"", headers)


@pytest.fixture
def server():
    Handler.asked.clear()
    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def document(url, limit_bytes=100):
    return ask(Hosts(), lambda client: client.document(url, limit_bytes, what="signature"), limits=QUICK)


def test_a_document_or_nothing(server):
    assert document(f"{server}/text") == b"hello"
    assert document(f"{server}/404") is None
    assert not any("Authorization" in headers for _, headers in Handler.asked)


def test_a_longer_one_is_refused(server):
    with pytest.raises(Invalid):
        document(f"{server}/text", 4)
    assert document(f"{server}/text", 5) == b"hello"


@pytest.mark.parametrize(("status", "times"), [(500, 2), (429, 2), (408, 2), (403, 1), (204, 1)])
def test_what_may_pass_is_asked_again(server, status, times):
    with pytest.raises(Unavailable, match=f"it answers {status}"):
        document(f"{server}/{status}")
    assert len(Handler.asked) == times


def test_redirects(server):
    assert document(f"{server}/to//text") == b"hello"
    assert document(f"{server}/to/{server}/text") == b"hello"
    for target in ("file:///etc/passwd", "http://169.254.169.254/x", "", "gopher://a.b"):
        with pytest.raises(Unavailable):
            document(f"{server}/to/{target}")


def test_nobody_there():
    with pytest.raises(Unavailable, match="cannot reach"):
        document(f"http://{DEAD_HOST}/x")


@pytest.mark.parametrize("url", ["", "file:///x", "http://", "http://user@a.b/x", "http://a.b/ü"])
def test_what_is_no_url(url):
    with pytest.raises(Invalid):
        document(url)
