"""Exec, attach and the old port-forward over WebSocket channels, with wsproto as the client."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from support.websocket_peer import Peer
from support.websocket_sessions import TTY, V5, cat, forward, over_at_once, run, until_ended
from wsproto import events as ws

from criollo.aio.http_server import Request
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import AttachSession, ForwardSession
from criollo.streaming import websocket
from criollo.streaming.session import Status
from criollo.streaming.websocket import Forwards, Served, negotiate


def test_exec_from_greeting_to_goodbye() -> None:
    async def client(peer: Peer) -> tuple[Any, ...]:
        chosen = await peer.accepted()
        greeting = await peer.message()
        await peer.send(ws.Message(b"\0hello"))
        echo = await peer.message()
        await peer.send(ws.Message(b"\xff\0"))
        status = await peer.message()
        return chosen, greeting, echo, status, await peer.closed(), await peer.event()

    chosen, greeting, echo, status, closed, after = run(cat, client)
    assert chosen == V5
    assert greeting == b"\1"
    assert echo == b"\1hello"
    assert status[:1] == b"\3"
    assert json.loads(status[1:])["status"] == "Success"
    assert closed.code == 1000
    assert after is None


@pytest.mark.parametrize(
    ("offers", "chosen", "messages"),
    [
        ((), None, [b"\1", b"\1out", b"\2err", b"\3command terminated with non-zero exit code: 3"]),
        (
            ("channel.k8s.io",),
            "channel.k8s.io",
            [b"\1", b"\1out", b"\2err", b"\3command terminated with non-zero exit code: 3"],
        ),
        (("base64.channel.k8s.io",), "base64.channel.k8s.io", ["1", "1b3V0", "2ZXJy"]),
        (("chat", "v4.channel.k8s.io", V5), "v4.channel.k8s.io", [b"\1", b"\1out", b"\2err"]),
        (("v4.base64.channel.k8s.io",), "v4.base64.channel.k8s.io", ["1", "1b3V0", "2ZXJy"]),
    ],
)
def test_output_and_status_in_each_subprotocol(offers: Sequence[str], chosen: str | None, messages: list[bytes | str]) -> None:
    async def server(served: Served) -> None:
        streams = served.offered.streams
        assert streams.stdout is not None
        assert streams.stderr is not None
        await streams.stdout.write(b"out")
        await streams.stderr.write(b"err")
        await served.offered.finish(Status(exit_code=3))

    async def client(peer: Peer) -> tuple[Any, ...]:
        return await peer.accepted(), [await peer.message() for _ in range(4)]

    found, heard = run(server, client, offers=offers)
    assert found == chosen
    assert heard[: len(messages)] == messages
    if chosen == "v4.channel.k8s.io":
        assert json.loads(heard[3][1:])["details"] == {"causes": [{"reason": "ExitCode", "message": "3"}]}


def test_greeting_is_on_the_lowest_channel_that_the_client_reads() -> None:
    async def client(peer: Peer) -> bytes | str:
        await peer.accepted()
        return await peer.message()

    attach = AttachSession(container_id=ContainerId("c" * 64), stderr=True)
    assert run(over_at_once, client, session=attach) == b"\2"
    only_stdin = AttachSession(container_id=ContainerId("c" * 64), stdin=True)
    assert run(over_at_once, client, session=only_stdin) == b"\3"


def test_only_what_was_asked_for_is_offered() -> None:
    seen: list[Served] = []

    async def server(served: Served) -> None:
        seen.append(served)

    async def client(peer: Peer) -> None:
        await peer.closed()

    run(server, client, session=AttachSession(container_id=ContainerId("c" * 64), stderr=True))
    run(server, client, session=TTY)
    (first, second) = (served.offered.streams for served in seen)
    assert (first.stdin, first.stdout, first.sizes) == (None, None, None)
    assert first.stderr is not None
    assert second.stderr is None
    assert second.sizes is not None


@pytest.mark.parametrize("offers", [["chat"], ["v3.channel.k8s.io"], ["SPDY/3.1+portforward.k8s.io"]])
def test_unknown_subprotocol_is_refused_before_the_101(offers: list[str]) -> None:
    async def client(peer: Peer) -> ws.Event | None:
        return await peer.event()

    refused = run(until_ended, client, offers=offers)
    assert isinstance(refused, ws.RejectConnection)
    assert refused.status_code == 400


def test_forward_begins_with_the_ports() -> None:
    async def server(forwards: Forwards) -> None:
        for pair in forwards.pairs:
            await pair.data.write(b"from %d" % pair.port)
        await forwards.pairs[1].error.write(b"nothing listens")
        assert await forwards.pairs[1].data.read() == b"to 443"
        await forwards.pairs[1].data.close()
        assert await forwards.pairs[1].data.read() == b""

    async def client(peer: Peer) -> list[bytes | str]:
        await peer.send_when_accepted(ws.Message(b"\2to 443"), ws.Message(b"\1no"), ws.Message(b"\4no"), is_greeted=False)
        return [await peer.message() for _ in range(7)]

    assert forward(server, client, ports=(8080, 443)) == [
        b"\0\x90\x1f",
        b"\1\x90\x1f",
        b"\2\xbb\1",
        b"\3\xbb\1",
        b"\0from 8080",
        b"\2from 443",
        b"\3nothing listens",
    ]


def test_forward_in_base64() -> None:
    async def server(forwards: Forwards) -> None:
        await forwards.pairs[0].data.write(await forwards.pairs[0].data.read())
        await forwards.pairs[0].data.reset()

    async def client(peer: Peer) -> list[bytes | str]:
        await peer.send_when_accepted(ws.Message("0aGk="), is_greeted=False)
        return [await peer.message() for _ in range(3)]

    assert forward(server, client, ports=(80,), offers=["v4.base64.channel.k8s.io"]) == ["0UAA=", "1UAA=", "0aGk="]


@pytest.mark.parametrize(("ports", "offers"), [((), ()), (tuple(range(1, 42)), ("v4.base64.channel.k8s.io",))])
def test_forward_without_a_channel_for_each_port_is_refused(ports: tuple[int, ...], offers: Sequence[str]) -> None:
    async def client(peer: Peer) -> ws.Event | None:
        return await peer.event()

    refused = forward(until_ended, client, ports=ports, offers=offers)
    assert isinstance(refused, ws.RejectConnection)
    assert refused.status_code == 400


def test_tunnel_needs_no_ports_in_the_request() -> None:
    headers = {
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": "SPDY/3.1+portforward.k8s.io",
    }
    request = Request(method="GET", path="/portforward/t", query={}, headers=headers)
    handshake = negotiate(request, ForwardSession(pod_id=PodId("p" * 64)))
    assert handshake.is_tunnel
    assert not websocket.Handshake(handshake.key, "v4.channel.k8s.io").is_tunnel
