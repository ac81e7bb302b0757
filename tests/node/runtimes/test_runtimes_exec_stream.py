"""Streamed exec with real runtimes: streams, terminals, codes, and that nothing of an ended session stays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
from handmade import Node, in_container
from support.waiting import until

from criollo.aio.streams import Size, Streams
from criollo.errors import ToolFailed
from criollo.monitor.exits import Watched
from criollo.runtimes.base import CreateRequest
from criollo.runtimes.oci import OciRuntime

pytestmark = pytest.mark.node
T = TypeVar("T")


class Sink:
    """A client's stream that keeps what it is given."""

    def __init__(self) -> None:
        self.content = b""
        self.size = 0

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size < 1 << 20:
            self.content += data

    async def close(self) -> None:
        pass


class Stuck(Sink):
    """A client that has stopped reading."""

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        await asyncio.get_running_loop().create_future()


class Keys:
    """A client's stdin: what is typed now and later; the end when told."""

    def __init__(self, *typed: bytes, ended: bool = True) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.is_dropped = False
        for data in typed:
            self._queue.put_nowait(data)
        if ended:
            self._queue.put_nowait(b"")

    def type(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    async def read(self) -> bytes:
        return await self._queue.get()

    def drop(self) -> None:
        self.is_dropped = True


def plain(output: bytes) -> bytes:
    """A terminal's output. runc translates newlines twice until it has set up the terminal inside."""
    return output.replace(b"\r\r\n", b"\r\n")


def inside(node: Node, runtime: OciRuntime, work: Callable[[CreateRequest, Watched], Awaitable[T]]) -> T:
    """Run `work` beside a container that sleeps."""

    async def scenario() -> T:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        try:
            async with asyncio.timeout(60):
                return await work(request, watched)
        finally:
            await node.remove(runtime, watched)

    return asyncio.run(scenario())


def run(node: Node, runtime: OciRuntime, *args: str, tty: bool = False, keys: Keys | None = None) -> tuple[int, bytes, bytes]:
    """Code, stdout and stderr of a command."""

    async def work(request: CreateRequest, watched: Watched) -> tuple[int, bytes, bytes]:
        out, err = Sink(), Sink()
        streams = Streams(stdin=keys, stdout=out, stderr=None if tty else err)
        code = await runtime.exec_stream(node.command(request, *args, tty=tty), streams)
        return code, plain(out.content), err.content

    return inside(node, runtime, work)


def test_streams_and_code_are_apart(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


def test_signal_of_the_command_is_128_and_more(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "sh", "-c", "kill -9 $$")[0] == 137


def test_end_of_stdin_reaches_the_command(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "cat", keys=Keys(b"one ", b"two")) == (0, b"one two", b"")


def test_without_stdin_the_command_finds_its_end_at_once(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "cat") == (0, b"", b"")


def test_stdin_that_the_command_does_not_take_is_dropped(node: Node) -> None:
    runtime = node.runtime("crun")  # runc passes the SIGPIPE of its own copying on to the command: 141
    keys = Keys(*[b"x" * 100_000] * 100, ended=False)
    assert run(node, runtime, "sh", "-c", "exec <&-; sleep 0.1; echo done", keys=keys)[:2] == (0, b"done\n")
    assert keys.is_dropped


def test_a_command_that_is_not_there_is_127_with_the_runtimes_words(node: Node, runtime: OciRuntime) -> None:
    code, _, said = run(node, runtime, "nosuch")
    assert code == 127
    assert b"nosuch" in said
    assert b"not found in $PATH" in said


def test_a_path_that_is_not_there_is_127(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "/bin/nosuch")[0] == 127


def test_a_command_that_is_no_program_is_126(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "/tmp")[0] == 126


def test_a_missing_command_in_a_terminal_is_told_there(node: Node, runtime: OciRuntime) -> None:
    code, said, _ = run(node, runtime, "nosuch", tty=True)
    assert (code, b"not found in $PATH" in said) == (127, True)


def test_a_failure_that_nobody_would_see_is_an_error(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> None:
        with pytest.raises(ToolFailed, match=r"cannot run nosuch in container .*not found in \$PATH"):
            await runtime.exec_stream(node.command(request, "nosuch"), Streams(stdout=Sink()))

    inside(node, runtime, work)


def test_exec_in_a_stopped_container_is_an_error(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["true"])
        watched = await node.start(runtime, request)
        await runtime.wait_exit(watched)
        with pytest.raises(ToolFailed):
            await runtime.exec_stream(node.command(request, "true"), Streams(stdout=Sink(), stderr=Sink()))
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_output_without_a_listener_does_not_hold_the_command(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> int:
        command = node.command(request, "dd", "if=/dev/zero", "bs=1M", "count=20")
        return await runtime.exec_stream(command, Streams())

    assert inside(node, runtime, work) == 0


def test_a_flood_arrives_whole(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> int:
        out = Sink()
        await runtime.exec_stream(node.command(request, "dd", "if=/dev/zero", "bs=64k", "count=4096"), Streams(stdout=out))
        return out.size

    assert inside(node, runtime, work) == 4096 << 16


def test_a_terminal_is_one_and_its_output_arrives_whole(node: Node, runtime: OciRuntime) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done; exit 5"
    code, out, _ = run(node, runtime, "sh", "-c", script, tty=True)
    assert code == 5
    assert out == b"".join(b"%d\r\n" % n for n in range(5000))


def test_what_is_typed_is_echoed_once_and_taken(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> tuple[int, bytes]:
        out, keys = Sink(), Keys(ended=False)
        command = node.command(request, "sh", "-c", "echo ready; read line; echo got $line", tty=True)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(runtime.exec_stream(command, Streams(stdin=keys, stdout=out)))
            await until(lambda: b"ready" in out.content)
            keys.type(b"hello\r")
        return running.result(), plain(out.content)

    assert inside(node, runtime, work) == (0, b"ready\r\nhello\r\ngot hello\r\n")


def test_the_end_of_stdin_is_nothing_to_a_terminal(node: Node, runtime: OciRuntime) -> None:
    code, out, _ = run(node, runtime, "sh", "-c", "read line; echo got $line; exit 4", tty=True, keys=Keys(b"word\r"))
    assert code == 4
    assert out.endswith(b"got word\r\n")


def test_sizes_reach_the_command_with_a_signal(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> bytes:
        out = Sink()
        told: asyncio.Queue[Size] = asyncio.Queue()

        async def sizes() -> AsyncIterator[Size]:
            while True:
                yield await told.get()

        script = "trap 'stty size; exit' WINCH; echo ready; while true; do sleep 0.01; done"
        command = node.command(request, "sh", "-c", script, tty=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(runtime.exec_stream(command, Streams(stdout=out, sizes=sizes())))
            await until(lambda: b"ready" in out.content)
            told.put_nowait(Size(33, 77))
        return plain(out.content)

    assert inside(node, runtime, work) == b"ready\r\n33 77\r\n"


@pytest.mark.parametrize("tty", [False, True])
def test_a_cancelled_session_leaves_no_process(node: Node, runtime: OciRuntime, *, tty: bool) -> None:
    async def work(request: CreateRequest, watched: Watched) -> None:
        command = node.command(request, "sh", "-c", "sleep 77 & sleep 78; true", tty=tty)
        streams = Streams(stdin=Keys(ended=False), stdout=Sink())
        async with asyncio.TaskGroup() as group:
            running = group.create_task(runtime.exec_stream(command, streams))
            await until(lambda: len(in_container(watched.pid)) == 4)
            running.cancel()
        await until(lambda: len(in_container(watched.pid)) == 1)  # killed; the kernel may still be at it

    inside(node, runtime, work)


def test_a_cancelled_command_that_starts_others_all_the_time_leaves_none(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> None:
        command = node.command(request, "sh", "-c", "while true; do sleep 77 & done")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(runtime.exec_stream(command, Streams(stdout=Sink())))
            await until(lambda: len(in_container(watched.pid)) > 40)
            running.cancel()
        await until(lambda: len(in_container(watched.pid)) == 1)

    inside(node, runtime, work)


def test_a_client_that_stops_reading_holds_the_command_and_no_memory(node: Node, runtime: OciRuntime) -> None:
    async def work(request: CreateRequest, watched: Watched) -> int:
        out = Stuck()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(runtime.exec_stream(node.command(request, "yes"), Streams(stdout=out)))
            await until(lambda: out.size)
            running.cancel()
        return out.size

    assert 0 < inside(node, runtime, work) <= 256 << 10


def test_a_background_child_does_not_hold_the_session(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "sh", "-c", "sleep 1000 & echo done; exit 6") == (6, b"done\n", b"")


def test_a_chattering_background_child_does_not_hold_the_session(node: Node, runtime: OciRuntime) -> None:
    code, out, _ = run(node, runtime, "sh", "-c", "yes & echo $$; exit 6")
    assert code == 6
    assert len(out) <= 2 << 20


def test_a_signal_of_a_command_with_a_background_child_is_told(node: Node, runtime: OciRuntime) -> None:
    assert run(node, runtime, "sh", "-c", "sleep 1000 & kill -9 $$")[0] == 137


def test_a_slow_client_gets_all_that_was_written_before_the_end(node: Node, runtime: OciRuntime) -> None:
    size = 192 << 10  # more than the pipes of a runtime in between hold

    class Slow(Sink):
        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0.4)
            await super().write(data)

    async def work(request: CreateRequest, watched: Watched) -> tuple[int, int]:
        out = Slow()
        command = node.command(request, "sh", "-c", f"sleep 1000 & head -c {size} /dev/zero; exit 6")
        return await runtime.exec_stream(command, Streams(stdout=out)), out.size

    assert inside(node, runtime, work) == (6, size)


def test_background_children_do_not_hold_a_terminal(node: Node, runtime: OciRuntime) -> None:
    code, out, _ = run(node, runtime, "sh", "-c", "trap '' HUP; sleep 1000 & echo done; exit 6", tty=True)
    assert (code, out) == (6, b"done\r\n")
