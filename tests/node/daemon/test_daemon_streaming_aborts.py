"""Clients that go away at any moment: nothing of theirs stays in the daemon, and its log has nothing to complain of."""

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support import leaks, streaming
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.echo import echoing

CLIENTS = 40
MARK = "8642"  # what their commands are told from others by
COMPLAINT = re.compile(r"^\S+ (error|critical) |Traceback|never retrieved")
Client = Callable[[str, random.Random], Awaitable[None]]


@pytest.fixture
def container(daemon: Daemon, image: str) -> str:
    config = daemon.container_config(image, "sh", "-c", "while true; do echo tick; sleep 0.01; done")
    return daemon.run_container(daemon.run_pod(), config)


async def leave(connection: Any, luck: random.Random, *openings: dict[str, str]) -> None:
    """Open some of the streams, say a little, and go without a word."""
    opened = []
    for headers in openings[: luck.randint(1, 2 * len(openings))]:
        opened.append(await connection.open(headers))
    if luck.random() < 0.5:
        await opened[-1].write(bytes(1000))
    if luck.random() < 0.7:
        await asyncio.sleep(luck.random() * 0.1)  # anywhere between the start of a command and its output
    connection.abort()


def left_by_all(daemon: Daemon, verb: str, request: Callable[[random.Random], Any], client: Client) -> None:
    """Let clients come and go, eight at a time; what they leave behind is an error."""

    async def main(numbers: range) -> None:
        turns = asyncio.Semaphore(8)

        async def one(number: int) -> None:
            async with turns, asyncio.timeout(streaming.LIMIT_S):
                url = daemon.cri.call(verb, request(random.Random(number))).url  # good for a minute
                await client(url, random.Random(number))

        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(one(number))

    connected = leaks.held_by(daemon.pid)["tcp"]
    asyncio.run(main(range(1000, 1008)))  # threads and files that stay
    wait_for(lambda: not commands() and leaks.held_by(daemon.pid)["tcp"] <= connected)
    held, begin = leaks.held_by(daemon.pid), len(daemon.log())
    asyncio.run(main(range(CLIENTS)))
    wait_for(lambda: not commands())
    assert leaks.settled(lambda: grown(held, leaks.held_by(daemon.pid)), 60) == {}
    wait_for(lambda: daemon.log()[begin:].count("session has ended") == CLIENTS)
    said = daemon.log()[begin:]
    assert [line for line in said.splitlines() if COMPLAINT.search(line)] == []


def commands() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if MARK.encode() in words:
            found.append(pid)
    return found


def grown(before: dict[str, int], now: dict[str, int]) -> dict[str, list[str]]:
    return {name: [f"{before[name]} -> {now[name]}"] for name in ("fds", "tcp") if now[name] > before[name]}


@pytest.mark.parametrize("tty", [False, True])
def test_clients_of_an_exec_leave_nothing(daemon: Daemon, container: str, *, tty: bool) -> None:
    def request(luck: random.Random) -> Any:
        command = ["sleep", MARK] if luck.random() < 0.5 else ["sh", "-c", "yes $0 & yes $0", MARK]
        return pb.ExecRequest(container_id=container, cmd=command, tty=tty, stdin=True, stdout=True)

    async def client(url: str, luck: random.Random) -> None:
        kinds = ("error", "stdin", "stdout", *(("resize",) if tty else ()))
        async with streaming.spdy(url) as connection:
            await leave(connection, luck, *({"streamtype": kind} for kind in kinds))

    left_by_all(daemon, "Exec", request, client)


def test_clients_of_an_attach_leave_nothing(daemon: Daemon, container: str) -> None:
    async def client(url: str, luck: random.Random) -> None:
        async with streaming.spdy(url) as connection:
            await leave(connection, luck, *({"streamtype": kind} for kind in ("error", "stdout", "stderr")))

    request = pb.AttachRequest(container_id=container, stdout=True, stderr=True)
    left_by_all(daemon, "Attach", lambda _: request, client)


def test_clients_of_a_port_forward_leave_nothing(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    with echoing(daemon.runroot / "netns" / pod) as port:
        places = [{"port": str(port), "requestid": str(number)} for number in range(4)]
        openings = [{"streamtype": kind, **place} for place in places for kind in ("error", "data")]

        async def client(url: str, luck: random.Random) -> None:
            async with streaming.spdy(url, streaming.FORWARD_PROTOCOL) as connection:
                await leave(connection, luck, *openings)

        left_by_all(daemon, "PortForward", lambda _: pb.PortForwardRequest(pod_sandbox_id=pod), client)
