"""What to speak, decided from a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.aio.http_server import Reply, Request
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import ExecSession, ForwardSession
from criollo.streaming.negotiate import FORWARD_PROTOCOLS, PROCESS_PROTOCOLS, foreign_origin, spdy_head, spdy_protocol, wants

EXEC = ExecSession(container_id=ContainerId("c" * 64), argv=("true",), stdout=True)
FORWARD = ForwardSession(pod_id=PodId("d" * 64))
OWN = frozenset({"127.0.0.1:5000", "localhost:5000"})


def request(**headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method="POST", path="/exec/x", query={}, headers=named)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"connection": "Upgrade", "upgrade": "SPDY/3.1"}, True),
        ({"connection": "keep-alive, upgrade", "upgrade": "spdy/3.1"}, True),
        ({"upgrade": "SPDY/3.1"}, False),
        ({"connection": "Upgrade"}, False),
        ({"connection": "Upgrade", "upgrade": "SPDY/3"}, False),
        ({"connection": "Upgrade", "upgrade": "h2c"}, False),
        ({}, False),
    ],
)
def test_upgrade_needs_both_headers(headers: dict[str, str], wanted: bool) -> None:
    assert wants(request(**headers), "SPDY/3.1") is wanted


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("v4.channel.k8s.io, v3.channel.k8s.io, v2.channel.k8s.io, channel.k8s.io", "v4.channel.k8s.io"),
        ("v5.channel.k8s.io,v4.channel.k8s.io", "v4.channel.k8s.io"),
        ("v2.channel.k8s.io, v4.channel.k8s.io", "v2.channel.k8s.io"),
        ("channel.k8s.io", "channel.k8s.io"),
    ],
)
def test_first_version_of_the_client_that_we_have_is_taken(offered: str, chosen: str) -> None:
    assert spdy_protocol(request(x_stream_protocol_version=offered), EXEC) == chosen


def test_port_forward_has_one_protocol() -> None:
    assert spdy_protocol(request(x_stream_protocol_version="portforward.k8s.io"), FORWARD) == "portforward.k8s.io"


@pytest.mark.parametrize("headers", [{}, {"x_stream_protocol_version": ""}, {"x_stream_protocol_version": " , "}])
def test_missing_version_is_a_bad_request(headers: dict[str, str]) -> None:
    refusal = spdy_protocol(request(**headers), EXEC)
    assert isinstance(refusal, Reply)
    assert refusal.status == 400


@pytest.mark.parametrize(("session", "ours"), [(EXEC, PROCESS_PROTOCOLS), (FORWARD, FORWARD_PROTOCOLS)])
def test_unknown_versions_are_forbidden_and_ours_are_listed(session: ExecSession, ours: tuple[str, ...]) -> None:
    refusal = spdy_protocol(request(x_stream_protocol_version="v9.channel.k8s.io"), session)
    assert isinstance(refusal, Reply)
    assert refusal.status == 403
    assert tuple(value for _, value in refusal.headers) == ours


@given(st.text())
def test_any_offer_is_answered(offered: str) -> None:
    answer = spdy_protocol(request(x_stream_protocol_version=offered), EXEC)
    assert isinstance(answer, Reply) or answer in PROCESS_PROTOCOLS


def test_agreement_names_the_protocol() -> None:
    head = spdy_head("v4.channel.k8s.io")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "origin", "refused"),
    [
        ("127.0.0.1:5000", "", False),
        ("127.0.0.1:5000", "http://127.0.0.1:5000", False),
        ("LOCALHOST:5000", "https://localhost:5000", False),
        ("127.0.0.1:5000", "http://elsewhere.example", True),
        ("127.0.0.1:5000", "http://127.0.0.1:6000", True),
        ("127.0.0.1:5000", "null", True),
        ("127.0.0.1:5000", "http://[::1", True),
        ("api.example:6443", "https://console.example", False),  # through kubelet
    ],
)
def test_pages_from_elsewhere_do_not_connect_to_us(host: str, origin: str, refused: bool) -> None:
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert (foreign_origin(request(**headers), OWN) is not None) is refused
