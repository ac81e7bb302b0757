"""ExecSync with real runtimes: output, codes, limits, time limits."""

import asyncio

import pytest
from handmade import Node, in_container
from support.waiting import until

from criollo.errors import TimedOut, ToolFailed
from criollo.runtimes import execsync
from criollo.runtimes.base import EXEC_LIMIT_BYTES, ExecResult
from criollo.runtimes.oci import OciRuntime

pytestmark = pytest.mark.node


async def _exec(node: Node, runtime: OciRuntime, *args: str, timeout_s: float = 0, tty: bool = False) -> ExecResult:
    request = node.request(["sleep", "1000"], tty=tty)
    watched = await node.start(runtime, request)
    try:
        return await runtime.exec_sync(node.command(request, *args, timeout_s=timeout_s))
    finally:
        await node.remove(runtime, watched)


def test_streams_and_code_are_apart(node: Node, runtime: OciRuntime) -> None:
    result = asyncio.run(_exec(node, runtime, "sh", "-c", "echo out; echo err >&2; exit 3"))
    assert result == ExecResult(b"out\n", b"err\n", 3, 0)


def test_code_255_of_the_command_is_no_error(node: Node, runtime: OciRuntime) -> None:
    assert asyncio.run(_exec(node, runtime, "sh", "-c", "exit 255")).exit_code == 255


def test_signal_of_the_command_is_128_and_more(node: Node, runtime: OciRuntime) -> None:
    assert asyncio.run(_exec(node, runtime, "sh", "-c", "kill -9 $$")).exit_code == 137


def test_missing_command_is_an_error_with_its_name(node: Node, runtime: OciRuntime) -> None:
    with pytest.raises(ToolFailed, match=r"nosuch.* not found in \$PATH"):
        asyncio.run(_exec(node, runtime, "nosuch"))


def test_output_beyond_the_limit_is_dropped_and_counted(node: Node, runtime: OciRuntime) -> None:
    result = asyncio.run(_exec(node, runtime, "dd", "if=/dev/zero", "bs=1M", "count=20"))
    assert len(result.stdout) == EXEC_LIMIT_BYTES
    assert result.dropped_bytes == 4 << 20
    assert execsync._BUDGET.left_bytes == 256 << 20


def test_timeout_kills_the_command_and_its_children(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        with pytest.raises(TimedOut, match=r"command sh -c 'sleep 77 & sleep 78' timed out after 0\.5s"):
            await runtime.exec_sync(node.command(request, "sh", "-c", "sleep 77 & sleep 78", timeout_s=0.5))
        await until(lambda: len(in_container(watched.pid)) == 1)  # killed; the kernel may still be at it
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_cancelled_exec_leaves_nothing(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runtime.exec_sync(node.command(request, "sleep", "77")))
            await until(lambda: len(in_container(watched.pid)) == 2)
            task.cancel()
        await until(lambda: len(in_container(watched.pid)) == 1)  # killed; the kernel may still be at it
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_background_child_does_not_hold_the_answer(node: Node, runtime: OciRuntime) -> None:
    result = asyncio.run(_exec(node, runtime, "sh", "-c", "sleep 1000 & echo done"))
    assert (result.stdout, result.exit_code) == (b"done\n", 0)


def test_exec_in_a_container_with_a_terminal(node: Node, runtime: OciRuntime) -> None:
    assert asyncio.run(_exec(node, runtime, "echo", "hello", tty=True)).stdout == b"hello\n"


def test_many_at_once_answer_each_their_own(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> list[bytes]:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(runtime.exec_sync(node.command(request, "echo", str(n)))) for n in range(12)]
        await node.remove(runtime, watched)
        return [task.result().stdout for task in tasks]

    assert asyncio.run(scenario()) == [b"%d\n" % n for n in range(12)]


def test_exec_in_a_stopped_container_is_an_error(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["true"])
        watched = await node.start(runtime, request)
        await runtime.wait_exit(watched)
        with pytest.raises(ToolFailed):
            await runtime.exec_sync(node.command(request, "true"))
        await node.remove(runtime, watched)

    asyncio.run(scenario())
