"""kpod port-forward against a server in a real pod."""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kpod_node import Kpod

pytestmark = pytest.mark.node
two_at_once = pytest.mark.parametrize("kpod", ["daemon"], indirect=True)  # without one, a kpod is the only owner


SERVER = """
import asyncio, hashlib

async def echo(reader, writer):
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()

async def digest(reader, writer):
    writer.write(hashlib.sha256(await reader.read()).hexdigest().encode())
    writer.close()

async def main():
    await asyncio.start_server(echo, "127.0.0.1", 7, backlog=200)
    await asyncio.start_server(digest, "127.0.0.1", 9)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def pod(kpod: Kpod) -> Iterator[str]:
    """A pod in whose network port 7 sends back what it gets, and port 9 a digest of it when the client has said its last."""
    assert kpod("run", "-d", "--name", "echo", kpod.image, "sleep", "1000").status == 0
    pid = json.loads(kpod("inspect", "-t", "container", "echo").out)["info"]["pid"]
    server = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", SERVER]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield "echo"
        finally:
            process.kill()
            assert kpod("rm", "-f", "echo").status == 0


@contextlib.contextmanager
def forwarded(kpod: Kpod, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """kpod port-forward, and where it listens, in order."""
    with kpod.start("port-forward", *arguments) as process:
        assert process.stdout is not None
        count = 2 * sum(":" in each or each.isdigit() for each in arguments[1:])
        lines = [process.stdout.readline() for _ in range(count)]
        found = [re.fullmatch(r"(?:127\.0\.0\.1|\[::1\]):(\d+) -> \d+\n", line) for line in lines]
        assert all(found), (lines, process.stderr.read() if process.stderr is not None and process.poll() is not None else "")
        yield process, [int(match[1]) for match in found if match is not None]


def talk(port: int, content: bytes, host: str = "127.0.0.1") -> bytes:
    """Send, say that it is all, read to the end."""
    with socket.create_connection((host, port), timeout=60) as client, ThreadPoolExecutor(1) as beside:
        sent = beside.submit(lambda: (client.sendall(content), client.shutdown(socket.SHUT_WR)))
        got = b""
        while piece := client.recv(1 << 16):
            got += piece
        sent.result()
        return got


def test_bytes_come_and_go_at_both_addresses_and_half_closed(kpod: Kpod, pod: str) -> None:
    content = os.urandom(4 << 20)
    with forwarded(kpod, pod, ":7", ":9") as (process, ports):
        assert ports[0] == ports[1]
        assert talk(ports[0], content) == content
        assert talk(ports[1], content, "::1") == content
        assert talk(ports[2], content).decode() == hashlib.sha256(content).hexdigest()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.strip()) == (130, "")


def test_many_connections_at_once(kpod: Kpod, pod: str) -> None:
    with forwarded(kpod, pod, ":7") as (_, ports), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", ports[0]), timeout=60)) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number)
        for number, client in enumerate(clients):
            assert client.recv(3, socket.MSG_WAITALL) == b"%03d" % number


def test_nobody_listens_is_told_and_the_connection_reset(kpod: Kpod, pod: str) -> None:
    with forwarded(kpod, pod, ":8") as (process, ports):
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=60) as client, pytest.raises(ConnectionResetError):
            assert client.recv(1) != b""
        assert process.stderr is not None
        assert "nothing listens on it" in process.stderr.readline()
        assert process.poll() is None


@two_at_once
def test_a_pod_that_goes_is_told_and_a_new_one_is_not_meant(kpod: Kpod, pod: str) -> None:
    with forwarded(kpod, pod, ":7") as (process, ports):
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=60) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert kpod("stop", "-t", "0", pod).status == 0
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=60) as client, pytest.raises(ConnectionResetError):
            assert client.recv(1) != b""
        assert process.poll() is None


def test_a_port_that_is_taken_and_a_pod_that_is_not_there(kpod: Kpod, pod: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = kpod("port-forward", pod, f"{port}:7")
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith(f"kpod: cannot listen at 127.0.0.1 port {port}: Address already in use")
    assert kpod("port-forward", "nobody", "80").err.startswith("kpod: pod nobody not found")
    assert kpod("port-forward", pod, "--address", "203.0.113.1", "80").status == 1
