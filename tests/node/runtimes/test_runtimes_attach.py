"""Attach through a real conmon: output from now on, stdin, several clients, slow ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from handmade import PARENT, Node
from support.waiting import until

from criollo.aio.streams import Size, Streams
from criollo.errors import TimedOut, WrongState
from criollo.monitor import attach as monitor
from criollo.monitor.attach import Target, attach
from criollo.monitor.exits import Watched
from criollo.runtimes.base import CreateRequest
from criollo.runtimes.oci import OciRuntime

pytestmark = pytest.mark.node


class Client:
    """What one client typed and was told. `is_open` closes the tap of what it takes."""

    def __init__(self, *typed: bytes) -> None:
        self.out = self.err = b""
        self.taken = 0
        self.is_asked = self.is_dropped = False
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._keys: asyncio.Queue[bytes] = asyncio.Queue()
        for data in typed:
            self.type(data)

    def type(self, data: bytes) -> None:
        self._keys.put_nowait(data)

    async def read(self) -> bytes:
        return await self._keys.get()

    def drop(self) -> None:
        self.is_dropped = True

    def streams(self, *, stdin: bool = False, sizes: AsyncIterator[Size] | None = None) -> Streams:
        return Streams(self if stdin else None, _Stream(self, "out"), _Stream(self, "err"), sizes)


class _Stream:
    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    async def write(self, data: bytes) -> None:
        self._client.is_asked = True
        await self._client.is_open.wait()
        self._client.taken += len(data)
        if self._client.taken < 4 << 20:
            setattr(self._client, self._name, getattr(self._client, self._name) + data)

    async def close(self) -> None:
        pass


class Beside:
    """A running container and its clients."""

    def __init__(self, request: CreateRequest, watched: Watched, group: asyncio.TaskGroup) -> None:
        self.request, self.watched, self._group = request, watched, group
        self.ending = asyncio.Event()
        self.target = Target(request.container_id, request.bundle, request.tty, request.stdin, request.stdin_once)

    def attach(self, client: Client, **options: Any) -> "asyncio.Task[None]":
        return self._group.create_task(attach(self.target, client.streams(**options), ending=self.ending))


def beside(
    node: Node, args: list[str], work: Callable[[Beside], Awaitable[None]], *, program: str = "crun", **options: Any
) -> None:
    """Run `work` beside a running container; it is killed at the end."""

    async def scenario() -> None:
        runtime = node.runtime(program)
        request = node.request(args, **options)
        watched = await node.start(runtime, request)
        try:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                await work(Beside(request, watched, group))
                await node_end(runtime, watched)
        finally:
            await node.remove(runtime, watched)

    asyncio.run(scenario())


async def node_end(runtime: OciRuntime, watched: Watched) -> None:
    """Clients end with their container."""
    await runtime.kill_all(watched)


TICKS = ["sh", "-c", "while true; do echo tick; echo tock >&2; sleep 0.01; done"]


def test_streams_are_apart(node: Node) -> None:
    async def work(here: Beside) -> None:
        client = Client()
        here.attach(client)
        await until(lambda: b"tick\n" in client.out and b"tock\n" in client.err)
        assert b"tock" not in client.out

    beside(node, TICKS, work)


def test_all_clients_hear_it_and_one_that_goes_away_does_no_harm(node: Node) -> None:
    async def work(here: Beside) -> None:
        clients = [Client() for _ in range(4)]
        tasks = [here.attach(client) for client in clients]
        await until(lambda: all(client.out for client in clients))
        tasks[0].cancel()
        before = clients[1].taken
        await until(lambda: clients[1].taken > before + 1000)

    beside(node, TICKS, work)


def test_attach_ends_with_the_container_after_its_last_words(node: Node) -> None:
    async def work(here: Beside) -> None:
        client = Client(b"go\n")
        task = here.attach(client, stdin=True)
        await task
        assert client.out == b"".join(b"%d\n" % n for n in range(3000)) + b"end"

    script = "read go; i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; printf end"
    beside(node, ["sh", "-c", script], work, stdin=True, stdin_once=True)


def test_the_end_of_stdin_reaches_a_container_with_stdin_once(node: Node) -> None:
    async def work(here: Beside) -> None:
        client = Client(b"x" * 200_000, b"last", b"")
        await here.attach(client, stdin=True)
        assert client.out == b"x" * 200_000 + b"last"

    beside(node, ["cat"], work, stdin=True, stdin_once=True)


def test_stdin_stays_open_for_the_next_client_without_stdin_once(node: Node) -> None:
    async def work(here: Beside) -> None:
        await here.attach(Client(b"first\n", b""), stdin=True)
        second = Client(b"second\n")
        here.attach(second, stdin=True)
        await until(lambda: second.out.endswith(b"second\n"))

    beside(node, ["cat"], work, stdin=True)


def test_what_is_typed_into_a_container_without_stdin_is_dropped(node: Node) -> None:
    async def work(here: Beside) -> None:
        client = Client(b"x" * 100_000)
        here.attach(client, stdin=True)
        await until(lambda: client.is_dropped and client.out)

    beside(node, TICKS, work)


def test_a_terminal_takes_sizes_and_keys(node: Node) -> None:
    async def work(here: Beside) -> None:
        told: asyncio.Queue[Size] = asyncio.Queue()

        async def sizes() -> AsyncIterator[Size]:
            while True:
                yield await told.get()

        client = Client(b"stty size\r")
        told.put_nowait(Size(31, 79))
        here.attach(client, stdin=True, sizes=sizes())
        await until(lambda: b"stty size" in client.out)
        client.type(b"stty size\r")
        await until(lambda: b"31 79\r\n" in client.out)

    beside(node, ["sh"], work, tty=True, stdin=True)


def test_a_slow_client_does_not_hold_others_up_to_its_buffer(node: Node) -> None:
    async def work(here: Beside) -> None:
        slow, quick = Client(b"go\n"), Client()
        slow.is_open.clear()
        here.attach(quick)
        here.attach(slow, stdin=True)
        await until(lambda: quick.taken == 800 << 10)
        slow.is_open.set()
        await until(lambda: slow.taken == 800 << 10)

    script = "read go; dd if=/dev/zero bs=8k count=100 2>/dev/null; sleep 1000"
    beside(node, ["sh", "-c", script], work, stdin=True)


def test_a_client_that_takes_nothing_holds_the_container_for_a_while_only(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "STALL_S", 0.3)

    async def work(here: Beside) -> None:
        stuck, quick = Client(), Client()
        stuck.is_open.clear()
        with pytest.raises(TimedOut, match=r"took no output for 0\.3 s"):
            await attach(here.target, stuck.streams(), ending=here.ending)
        here.attach(quick)
        await until(lambda: quick.taken > 1 << 20)

    beside(node, ["yes"], work)


def test_an_ending_container_is_not_held_by_a_client(node: Node) -> None:
    async def scenario() -> None:
        runtime = node.runtime("crun")
        request = node.request(["yes"])
        watched = await node.start(runtime, request)
        stuck, ending = Client(), asyncio.Event()
        stuck.is_open.clear()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            target = Target(request.container_id, request.bundle)
            task = group.create_task(attach(target, stuck.streams(), ending=ending))
            await until(lambda: stuck.is_asked)
            ending.set()
            await runtime.kill_all(watched)
            assert (await runtime.wait_exit(watched)).code == 137
            assert not task.done()
            stuck.is_open.set()
        assert stuck.taken
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_a_container_without_a_monitor_is_told(node: Node) -> None:
    async def scenario() -> None:
        runtime = node.runtime("crun")
        request = node.request(["true"])
        watched = await node.start(runtime, request)
        await runtime.wait_exit(watched)
        with pytest.raises(WrongState, match="without a living monitor"):
            await attach(Target(request.container_id, request.bundle), Client().streams(), ending=asyncio.Event())
        await node.remove(runtime, watched)

    asyncio.run(scenario())
