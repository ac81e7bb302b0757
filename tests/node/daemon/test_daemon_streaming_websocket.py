"""Exec and port-forward over WebSocket, with wsproto as the client of a real daemon."""

import asyncio
import base64
import json
import os
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import streaming
from support.cri import pb
from support.daemon import Daemon
from support.echo import echoing
from support.websocket_client import chosen_subprotocol, new_key, request_headers
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.tunnel import Tunnel

LIMIT_S = 60


async def converse(url: str, protocol: str, *says: bytes | str, until: bytes = b"", unix: str = "") -> dict[int, bytes]:
    """What came on each channel until the server's end, or until channel 0 has said `until`."""
    place = urlsplit(url)
    opened = asyncio.open_unix_connection(unix) if unix else asyncio.open_connection(place.hostname, place.port)
    reader, writer = await opened
    connection = WSConnection(ConnectionType.CLIENT)
    writer.write(connection.send(ws.Request(host=place.netloc, target=place.path, subprotocols=[protocol] if protocol else [])))
    heard, message = defaultdict[int, bytes](bytes), b""
    async with asyncio.timeout(LIMIT_S):
        while not (until and heard[0].endswith(until)) and (data := await reader.read(1 << 18)):
            connection.receive_data(data)
            for event in connection.events():
                if isinstance(event, ws.AcceptConnection):
                    assert (event.subprotocol or "") == protocol
                    writer.write(b"".join(connection.send(ws.Message(data=each)) for each in says))
                elif isinstance(event, ws.TextMessage):  # of the base64 forms; a message fits one frame
                    heard[int(event.data[0])] += base64.b64decode(event.data[1:])
                elif isinstance(event, ws.BytesMessage):
                    message += event.data
                    if event.message_finished:
                        heard[message[0]] += message[1:]
                        message = b""
                elif isinstance(event, ws.CloseConnection):
                    writer.write(connection.send(event.response()))
    writer.close()
    return heard


def sleeper(daemon: Daemon, image: str) -> str:
    return daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))


def exec_url(daemon: Daemon, container_id: str, *command: str, **fields: bool) -> str:
    asked: dict[str, Any] = {"stdout": True, "stderr": True, **fields}
    return str(daemon.cri.call("Exec", pb.ExecRequest(container_id=container_id, cmd=list(command), **asked)).url)


def test_exec_gives_output_and_exit_code(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "sh", "-c", "echo out; echo err >&2; exit 5")
    heard = asyncio.run(converse(url, "v4.channel.k8s.io"))
    assert (heard[1], heard[2]) == (b"out\n", b"err\n")
    assert json.loads(heard[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]


@pytest.mark.parametrize("protocol", ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_base64_carries_both_ways(daemon: Daemon, image: str, protocol: str) -> None:
    data = os.urandom(30_000)
    url = exec_url(daemon, sleeper(daemon, image), "sh", "-c", "busybox head -c 30000; exit 5", stdin=True)
    heard = asyncio.run(converse(url, protocol, "0" + base64.b64encode(data).decode()))
    assert heard[1] == data
    assert b'"message":"5"' in heard[3] if protocol.startswith("v4") else heard[3].endswith(b"exit code: 5")


@pytest.mark.parametrize("protocol", ["", "channel.k8s.io"])
def test_first_version_tells_a_failure_as_text(daemon: Daemon, image: str, protocol: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "sh", "-c", "echo out; exit 5")
    heard = asyncio.run(converse(url, protocol))
    assert (heard[1], heard[3]) == (b"out\n", b"command terminated with non-zero exit code: 5")


def test_terminal_takes_its_size_from_the_client(daemon: Daemon, image: str) -> None:
    script = "until stty size 2>/dev/null | grep -q '33 77'; do sleep 0.02; done; echo sized"
    url = exec_url(daemon, sleeper(daemon, image), "sh", "-c", script, tty=True, stderr=False)
    heard = asyncio.run(converse(url, "v5.channel.k8s.io", b'\4{"Width":77,"Height":33}'))
    assert heard[1] == b"sized\r\n"


def test_end_of_stdin_can_be_said_since_version_five(daemon: Daemon, image: str) -> None:
    data = os.urandom(300_000)
    url = exec_url(daemon, sleeper(daemon, image), "cat", stdin=True)
    heard = asyncio.run(converse(url, "v5.channel.k8s.io", b"\0" + data, b"\xff\0"))
    assert heard[1] == data
    assert json.loads(heard[3])["status"] == "Success"


def test_unix_socket_serves_websocket(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, sleeper(daemon, image), "echo", "hello")
    assert asyncio.run(converse(url, "v5.channel.k8s.io", unix=daemon.socket))[1] == b"hello\n"


def test_port_of_the_request_is_forwarded(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    with echoing(daemon.runroot / "netns" / pod) as port:
        url = daemon.cri.call("PortForward", pb.PortForwardRequest(pod_sandbox_id=pod, port=[port])).url
        heard = asyncio.run(converse(url, "v4.channel.k8s.io", b"\0hello", until=b"hello"))
    assert heard[0] == port.to_bytes(2, "little") + b"hello"


@pytest.mark.parametrize("protocol", ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"])
def test_spdy_inside_a_websocket_forwards_a_port(daemon: Daemon, protocol: str) -> None:
    data = os.urandom(3 << 20)

    async def main(url: str, port: int) -> bytes:
        key = new_key()
        answer = await streaming.ask(url, *request_headers(key, [protocol]), method="GET")
        assert chosen_subprotocol(answer.headers, key) == protocol
        spdy = SpdyConnection(is_client=True)
        Tunnel(spdy, is_client=True).start(answer.transport, answer.body)
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            stream, error = await streaming.forwarded(spdy, port)
            back = group.create_task(streaming.drink(stream))
            await stream.write(data)
            await stream.close()
            assert await streaming.drink(error) == b""
        await spdy.close()
        return back.result()

    pod = daemon.run_pod()
    with echoing(daemon.runroot / "netns" / pod) as port:
        url = daemon.cri.call("PortForward", pb.PortForwardRequest(pod_sandbox_id=pod)).url
        assert asyncio.run(main(url, port)) == data
