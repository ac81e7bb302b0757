"""Port-forward through the streaming port of a real daemon."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks, streaming
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.echo import echoing

PORT = 7070
MIB = 1 << 20
DEAF = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
connection, _ = server.accept()
time.sleep(1000)
"""


def forward_url(daemon: Daemon, pod_id: str, *ports: int) -> str:
    return str(daemon.cri.call("PortForward", pb.PortForwardRequest(pod_sandbox_id=pod_id, port=ports)).url)


@pytest.fixture
def pod(daemon: Daemon) -> str:
    return daemon.run_pod()


@pytest.fixture
def port(daemon: Daemon, pod: str) -> Iterator[int]:
    """A port of the pod that sends back what it gets."""
    with echoing(daemon.runroot / "netns" / pod) as port:
        yield port


@contextlib.contextmanager
def listening(daemon: Daemon, pod_id: str, program: str) -> Iterator[None]:
    """A program of ours in the pod's network; it says when it listens."""
    argv = ["nsenter", f"--net={daemon.runroot}/netns/{pod_id}", sys.executable, "-c", program, str(PORT)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.kill()


async def echo(connection: Any, port: int, data: bytes, request_id: int) -> tuple[bytes, bytes]:
    """What comes back, and what the error stream says."""
    stream, error = await streaming.forwarded(connection, port, request_id)

    async def feed() -> None:
        await stream.write(data)
        await stream.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        back = group.create_task(streaming.drink(stream))
    return back.result(), await streaming.drink(error)


def test_forwarded_connection_carries_both_ways_and_half_closes(daemon: Daemon, pod: str, port: int) -> None:
    data = os.urandom(5 * MIB)

    async def main() -> tuple[bytes, bytes]:
        async with streaming.spdy(forward_url(daemon, pod), streaming.FORWARD_PROTOCOL) as connection:
            return await echo(connection, port, data, 0)

    assert asyncio.run(main()) == (data, b"")


def test_hundred_connections_at_once(daemon: Daemon, pod: str, port: int) -> None:
    before = leaks.held_by(daemon.pid)

    async def main() -> list[tuple[bytes, bytes]]:
        async with streaming.spdy(forward_url(daemon, pod), streaming.FORWARD_PROTOCOL) as connection:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(echo(connection, port, b"%d" % number * 1000, number)) for number in range(100)]
            return [task.result() for task in tasks]

    assert asyncio.run(main()) == [(b"%d" % number * 1000, b"") for number in range(100)]
    wait_for(lambda: leaks.held_by(daemon.pid)["fds"] <= before["fds"])


def test_port_without_a_listener_is_told_and_harms_no_other(daemon: Daemon, pod: str, port: int) -> None:
    async def main() -> tuple[bytes, tuple[bytes, bytes]]:
        async with streaming.spdy(forward_url(daemon, pod), streaming.FORWARD_PROTOCOL) as connection:
            _, error = await streaming.forwarded(connection, 7, 1)
            return await streaming.drink(error), await echo(connection, port, b"hello", 2)

    error, other = asyncio.run(main())
    assert b"nothing listens on it" in error
    assert other == (b"hello", b"")


def test_stopped_pod_ends_its_connections(daemon: Daemon, pod: str, port: int) -> None:
    async def main() -> bytes:
        async with (
            asyncio.timeout(streaming.LIMIT_S),
            streaming.spdy(forward_url(daemon, pod), streaming.FORWARD_PROTOCOL) as connection,
        ):
            stream, error = await streaming.forwarded(connection, port)
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
            await asyncio.get_running_loop().run_in_executor(None, daemon.stop_pod, pod)
            await streaming.drink(error)
            return await streaming.drink(stream)

    assert asyncio.run(main()) == b""


def test_client_that_goes_closes_its_connections(daemon: Daemon, pod: str, port: int) -> None:
    before = leaks.held_by(daemon.pid)

    async def main() -> None:
        async with streaming.spdy(forward_url(daemon, pod), streaming.FORWARD_PROTOCOL) as connection:
            stream, _ = await streaming.forwarded(connection, port)
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
            connection.abort()

    asyncio.run(main())
    wait_for(lambda: leaks.held_by(daemon.pid)["fds"] <= before["fds"])


def test_flood_into_a_pod_that_does_not_read_waits(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    before = resident_bytes(daemon.pid)

    async def main() -> int:
        async with streaming.spdy(forward_url(daemon, pod), streaming.FORWARD_PROTOCOL) as connection:
            stream, _ = await streaming.forwarded(connection, PORT)
            written = 0
            try:
                while True:
                    async with asyncio.timeout(2):  # nothing goes on any more
                        await stream.write(bytes(MIB))
                    written += MIB
            except TimeoutError:
                return written

    with listening(daemon, pod, DEAF):
        assert asyncio.run(main()) < 256 * MIB
    assert resident_bytes(daemon.pid) - before < 32 * MIB


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_port_out_of_range_is_refused(daemon: Daemon, pod: str, port: int) -> None:
    with pytest.raises(Exception, match="a number from 1 to 65535"):
        forward_url(daemon, pod, port)
