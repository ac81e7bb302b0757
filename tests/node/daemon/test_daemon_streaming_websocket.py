"""Exec and port-forward over WebSocket, with wsproto as the client of a real daemon."""

import asyncio
import json
import os
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from support.cri import pb
from support.daemon import Daemon
from support.echo import echoing
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

LIMIT_S = 60


async def converse(url: str, protocol: str, *says: bytes, until: bytes = b"", unix: str = "") -> dict[int, bytes]:
    """What came on each channel until the server's end, or until channel 0 has said `until`."""
    place = urlsplit(url)
    opened = asyncio.open_unix_connection(unix) if unix else asyncio.open_connection(place.hostname, place.port)
    reader, writer = await opened
    connection = WSConnection(ConnectionType.CLIENT)
    writer.write(connection.send(ws.Request(host=place.netloc, target=place.path, subprotocols=[protocol])))
    heard, message = defaultdict[int, bytes](bytes), b""
    async with asyncio.timeout(LIMIT_S):
        while not (until and heard[0].endswith(until)) and (data := await reader.read(1 << 18)):
            connection.receive_data(data)
            for event in connection.events():
                if isinstance(event, ws.AcceptConnection):
                    assert event.subprotocol == protocol
                    writer.write(b"".join(connection.send(ws.BytesMessage(data=each)) for each in says))
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
