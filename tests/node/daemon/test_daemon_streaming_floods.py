"""Floods through a real daemon: whoever is slow holds back the other end, and the daemon's memory does not grow."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import streaming
from support.cri import pb
from support.daemon import Daemon
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

MIB = 1 << 20
FLOOD_BYTES = 256 * MIB
GROWTH_BYTES = 24 * MIB
PORT = 7070
SOURCE = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
peer, _ = server.accept()
for _ in range(int(sys.argv[2]) >> 20):
    peer.sendall(bytes(1 << 20))
"""
SINK = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
peer, _ = server.accept()
size = 0
while data := peer.recv(1 << 20):
    size += len(data)
peer.sendall(b"%d" % size)
"""


def exec_url(daemon: Daemon, image: str, *command: str, stdin: bool = False) -> str:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    return url_in(daemon, container, *command, stdin=stdin)


def url_in(daemon: Daemon, container_id: str, *command: str, stdin: bool = False) -> str:
    request = pb.ExecRequest(container_id=container_id, cmd=list(command), stdin=stdin, stdout=True)
    return str(daemon.cri.call("Exec", request).url)


def yes(size_bytes: int) -> tuple[str, ...]:
    return ("sh", "-c", f"yes | busybox head -c {size_bytes}")


@contextlib.contextmanager
def bounded_memory(daemon: Daemon) -> Iterator[Callable[[], None]]:
    """Gives a function that looks; what it saw must stay under the bound."""
    before, most = resident_bytes(daemon.pid), 0

    def look() -> None:
        nonlocal most
        most = max(most, resident_bytes(daemon.pid))

    yield look
    look()
    print(f"{before / MIB:.1f} MiB, at most {most / MIB:.1f} MiB")
    assert most - before < GROWTH_BYTES, f"{(most - before) / MIB:.0f} MiB more"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def count(stream: Any, look: Callable[[], None]) -> int:
    size = 0
    while data := await stream.read():
        size += len(data)
        look()
    return size


async def feed(stream: Any, look: Callable[[], None]) -> None:
    chunk = bytes(MIB)
    for _ in range(FLOOD_BYTES // MIB):
        await stream.write(chunk)
        look()
    await stream.close()


def in_exec(url: str, use: Callable[[dict[str, Any]], Any], *kinds: str) -> Any:
    """What `use` gives with the open streams of an exec over SPDY."""

    async def main() -> Any:
        async with streaming.spdy(url) as connection, asyncio.timeout(10 * streaming.LIMIT_S):
            return await use(await streaming.process_streams(connection, "error", *kinds))

    return asyncio.run(main())


def test_output_over_spdy_is_held_by_the_client(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, image, *yes(FLOOD_BYTES))
    with bounded_memory(daemon) as look:
        assert in_exec(url, lambda streams: count(streams["stdout"], look), "stdout") == FLOOD_BYTES


def test_input_over_spdy_is_held_by_the_command(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, image, "busybox", "wc", "-c", stdin=True)
    with bounded_memory(daemon) as look:

        async def use(streams: dict[str, Any]) -> bytes:
            await feed(streams["stdin"], look)
            return await streaming.drink(streams["stdout"])

        assert int(in_exec(url, use, "stdin", "stdout")) == FLOOD_BYTES


def test_slow_reader_holds_back_only_itself(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    stuck, quick = url_in(daemon, container, "yes"), url_in(daemon, container, *yes(64 * MIB))
    with bounded_memory(daemon) as look:

        async def use(streams: dict[str, Any]) -> int:
            await streams["stdout"].read()  # and then no more
            async with streaming.spdy(quick) as connection:
                other = await streaming.process_streams(connection, "error", "stdout")
                return await count(other["stdout"], look)

        assert in_exec(stuck, use, "stdout") == 64 * MIB


class Socket:
    """An exec over WebSocket as wsproto speaks it; what is sent is masked with zeros, so that sending costs nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.wsproto = WSConnection(ConnectionType.CLIENT)
        self._is_first = True

    async def outputs(self) -> AsyncIterator[tuple[int, bytes]]:
        """Channel and bytes, until the server's goodbye."""
        channel = 0
        while data := await self._reader.read(1 << 18):
            self.wsproto.receive_data(data)
            for event in self.wsproto.events():
                if isinstance(event, ws.BytesMessage):
                    content = bytes(event.data)
                    if self._is_first and content:
                        channel, content = content[0], content[1:]
                    self._is_first = event.message_finished
                    yield channel, content
                elif isinstance(event, ws.CloseConnection):
                    self._writer.write(self.wsproto.send(event.response()))

    async def end_stdin(self) -> None:
        self._writer.write(self.wsproto.send(ws.BytesMessage(data=b"\xff\0")))
        await self._writer.drain()

    async def send(self, channel: int, payload: bytes) -> None:
        """A big message: over 64 KiB."""
        size = 1 + len(payload)
        self._writer.write(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + bytes((channel,)) + payload)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


@contextlib.asynccontextmanager
async def websocket(url: str) -> AsyncIterator[Socket]:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    opened = Socket(reader, writer)
    writer.write(opened.wsproto.send(ws.Request(host=place.netloc, target=place.path, subprotocols=["v5.channel.k8s.io"])))
    try:
        async with asyncio.timeout(10 * streaming.LIMIT_S):
            yield opened
    finally:
        opened.close()


def test_output_over_websocket_is_held_by_the_client(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, image, *yes(FLOOD_BYTES))
    with bounded_memory(daemon) as look:

        async def main() -> int:
            size = 0
            async with websocket(url) as client:
                async for channel, content in client.outputs():
                    size += len(content) if channel == 1 else 0
                    look()
            return size

        assert asyncio.run(main()) == FLOOD_BYTES


def test_input_over_websocket_is_held_by_the_command(daemon: Daemon, image: str) -> None:
    url = exec_url(daemon, image, "busybox", "wc", "-c", stdin=True)
    with bounded_memory(daemon) as look:

        async def main() -> bytes:
            said = b""
            async with websocket(url) as client:
                outputs = client.outputs()
                await anext(outputs)  # the greeting: the handshake is over
                chunk = bytes(MIB)
                for _ in range(FLOOD_BYTES // MIB):
                    await client.send(0, chunk)
                    look()
                await client.end_stdin()
                async for channel, content in outputs:
                    said += content if channel == 1 else b""
            return said

        assert int(asyncio.run(main())) == FLOOD_BYTES


@pytest.fixture
def forwarded(daemon: Daemon) -> Callable[[str], Any]:
    """Gives a way to serve a program at a port of a pod; what it gives is entered for the URL of a port-forward."""

    @contextlib.contextmanager
    def serve(program: str) -> Iterator[str]:
        pod = daemon.run_pod()
        netns = f"--net={daemon.runroot}/netns/{pod}"
        argv = ["nsenter", netns, sys.executable, "-c", program, str(PORT), str(FLOOD_BYTES)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"listening\n"
                yield str(daemon.cri.call("PortForward", pb.PortForwardRequest(pod_sandbox_id=pod, port=[PORT])).url)
            finally:
                process.kill()

    return serve


def in_forward(url: str, use: Callable[[Any], Any]) -> Any:
    async def main() -> Any:
        async with (
            streaming.spdy(url, streaming.FORWARD_PROTOCOL) as connection,
            asyncio.timeout(10 * streaming.LIMIT_S),
        ):
            stream, _ = await streaming.forwarded(connection, PORT)
            return await use(stream)

    return asyncio.run(main())


def test_forwarded_output_is_held_by_the_client(daemon: Daemon, forwarded: Callable[[str], Any]) -> None:
    with forwarded(SOURCE) as url, bounded_memory(daemon) as look:
        assert in_forward(url, lambda stream: count(stream, look)) == FLOOD_BYTES


def test_forwarded_input_is_held_by_the_pod(daemon: Daemon, forwarded: Callable[[str], Any]) -> None:
    with forwarded(SINK) as url, bounded_memory(daemon) as look:

        async def use(stream: Any) -> bytes:
            await feed(stream, look)
            return await streaming.drink(stream)

        assert int(in_forward(url, use)) == FLOOD_BYTES
