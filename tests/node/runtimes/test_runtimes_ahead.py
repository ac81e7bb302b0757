"""Runtimes that wait for a container's next command: used when it comes, gone when it does not."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from handmade import Node
from support.waiting import until

from criollo.errors import TimedOut, ToolFailed
from criollo.linux import procfs, proctree
from criollo.linux.cgroup import of_process
from criollo.monitor.exits import Watched
from criollo.runtimes.ahead import Ahead, _settled
from criollo.runtimes.base import CreateRequest, ExecResult
from criollo.runtimes.oci import OciRuntime

pytestmark = pytest.mark.node


def waiting(watched: Watched) -> list[int]:
    """Children of ours that are an exec in this container."""
    return [pid for pid in proctree.children(os.getpid()) if _is_exec(pid, watched.container_id)]


def _is_exec(pid: int, container_id: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"exec" in words and os.fsencode(container_id) in words


class Probed:
    """A container in which commands run, and after each of which the next is expected."""

    def __init__(self, node: Node, runtime: OciRuntime, request: CreateRequest, watched: Watched) -> None:
        self.node, self.runtime, self.request, self.watched = node, runtime, request, watched
        self.expecting: list[asyncio.Task[None]] = []

    def command(self, *args: str, **more: Any) -> Any:
        return self.node.command(self.request, *args, pid=self.watched.pid, pid_started=self.watched.pid_started, **more)

    async def run(self, *args: str, **more: Any) -> ExecResult:
        request = self.command(*args, **more)
        result = await self.runtime.exec_sync(request)
        self.expecting.append(asyncio.get_running_loop().create_task(self.runtime.expect_exec(request)))
        return result

    async def until_one_waits(self) -> int:
        """Its pid, once it is as far as it comes: reading a pipe, in the container's cgroups where it shall be."""
        for _ in range(2):
            await self.run("true")
        await until(lambda: len(found := waiting(self.watched)) == 1 and _reads_a_pipe(found[0]))
        return waiting(self.watched)[0]

    async def end(self) -> None:
        for task in self.expecting:
            task.cancel()
        await self.over()

    async def over(self) -> None:
        """Nobody waits any more."""
        if self.expecting:
            await asyncio.wait(self.expecting)


def _reads_a_pipe(pid: int) -> bool:
    try:
        call, first = Path(f"/proc/{pid}/syscall").read_text().split()[:2]
        return call == "0" and os.readlink(f"/proc/{pid}/fd/{int(first, 16)}").startswith("pipe:")
    except (OSError, ValueError):
        return False


def _has_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def scenario(node: Node, work: Callable[[Probed], Awaitable[None]], program: str = "crun", **options: Any) -> None:
    async def run() -> None:
        runtime = node.runtime(program)
        request = node.request(["sleep", "1000"], **options)
        watched = await node.start(runtime, request)
        probed = Probed(node, runtime, request, watched)
        try:
            await work(probed)
        finally:
            await probed.end()
            await node.remove(runtime, watched)

    asyncio.run(run())


def test_the_third_command_is_run_by_one_that_waited(node: Node) -> None:
    async def work(probed: Probed) -> None:
        pid = await probed.until_one_waits()
        started = procfs.start_time(pid)
        assert started is not None
        result = await probed.run("sh", "-c", "echo out; echo err >&2; exit 3")
        assert result == ExecResult(b"out\n", b"err\n", 3, 0)
        assert not procfs.is_alive(pid, started)

    scenario(node, work)


def test_one_command_alone_leaves_nobody_waiting(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.run("true")
        await probed.expecting[0]
        assert waiting(probed.watched) == []

    scenario(node, work)


def test_runc_does_not_wait(node: Node) -> None:
    async def work(probed: Probed) -> None:
        for _ in range(3):
            await probed.run("true")
        await probed.over()
        assert waiting(probed.watched) == []

    scenario(node, work, program="runc")


def test_its_command_has_the_containers_cgroups_and_namespaces(node: Node) -> None:
    async def work(probed: Probed) -> None:
        plain = (await probed.run("cat", "/proc/self/cgroup")).stdout
        await probed.until_one_waits()
        assert (await probed.run("cat", "/proc/self/cgroup")).stdout == plain
        assert all(path.endswith(probed.watched.container_id) for path in of_process(probed.watched.pid).values())
        await probed.until_one_waits()
        ours = {kind: os.readlink(f"/proc/{probed.watched.pid}/ns/{kind}") for kind in ("pid", "mnt", "net", "ipc", "uts")}
        script = "for kind in pid mnt net ipc uts; do readlink /proc/self/ns/$kind; done"
        assert (await probed.run("busybox", "sh", "-c", script)).stdout.decode().split() == list(ours.values())

    scenario(node, work)


def test_a_process_of_any_size_fits(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        request = probed.command("sh", "-c", "echo $BIG_7" + " " * 10)
        process = json.loads(request.process)
        process["env"] += [f"BIG_{number}=" + "x" * 100_000 for number in range(12)]
        request = msgspec.structs.replace(request, process=json.dumps(process).encode())
        assert (await probed.runtime.exec_sync(request)).stdout == b"x" * 100_000 + b"\n"

    scenario(node, work)


def test_a_missing_command_is_the_same_error(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        with pytest.raises(ToolFailed, match=r"nosuch.* not found in \$PATH"):
            await probed.run("nosuch")

    scenario(node, work)


def test_a_time_limit_kills_command_and_runtime(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        with pytest.raises(TimedOut, match="timed out"):
            await probed.run("sh", "-c", "sleep 77 & sleep 78", timeout_s=0.5)
        assert waiting(probed.watched) == []

    scenario(node, work)


def test_several_at_once_get_each_their_own(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(probed.run("echo", str(number))) for number in range(6)]
        assert [task.result().stdout for task in tasks] == [b"%d\n" % number for number in range(6)]
        await until(lambda: len(waiting(probed.watched)) == 1)

    scenario(node, work)


def test_one_that_was_killed_is_replaced(node: Node) -> None:
    async def work(probed: Probed) -> None:
        pid = await probed.until_one_waits()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: _has_ended(pid))
        assert (await probed.run("echo", "hello")).stdout == b"hello\n"
        await until(lambda: len(waiting(probed.watched)) == 1)

    scenario(node, work)


def test_another_is_wanted_as_soon_as_one_is_taken(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        ahead = probed.runtime._ahead
        assert ahead is not None
        taken = await ahead.take(probed.command("true"))
        assert ahead._is_wanted(probed.watched.container_id)  # before anybody else has had a turn
        assert taken is not None
        await taken.end()

    scenario(node, work)


def test_it_ends_with_its_container(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        os.kill(probed.watched.pid, signal.SIGKILL)
        await probed.over()
        assert waiting(probed.watched) == []

    scenario(node, work)


def test_it_ends_when_nobody_asks_for_a_while(node: Node) -> None:
    async def work(probed: Probed) -> None:
        ahead = Ahead(node.root / "state", node.hierarchies, kept_s=0.2)
        program = probed.runtime._program()
        for _ in range(2):
            await ahead.hold(program, probed.command("true"))
        assert waiting(probed.watched) == []

    scenario(node, work)


def test_a_bundle_that_went_meanwhile_is_not_made_again(node: Node) -> None:
    async def work(probed: Probed) -> None:
        bundle = node.root / "gone"
        request = msgspec.structs.replace(probed.command("true"), bundle=bundle)
        with pytest.raises(FileNotFoundError):
            _settled(node.root / "state", request, {})
        assert not bundle.exists()

    scenario(node, work)


def test_no_more_than_so_many_wait(node: Node) -> None:
    async def work(probed: Probed) -> None:
        ahead = Ahead(node.root / "state", node.hierarchies, most=0)
        for _ in range(3):
            await ahead.hold(probed.runtime._program(), probed.command("true"))
        assert waiting(probed.watched) == []

    scenario(node, work)


def test_it_ends_when_its_daemon_is_gone(node: Node) -> None:
    """The pipe's end closes with the daemon, however that ends: here by hand."""

    async def work(probed: Probed) -> None:
        pid = await probed.until_one_waits()
        assert probed.runtime._ahead is not None
        (held,) = probed.runtime._ahead._waiting.values()
        await held.spawned.wait()  # it can be as far as that before we know its pid
        assert held._run is not None
        assert held._run.command._document is not None
        held._run.command._document.close()
        await until(lambda: held._run is not None and held._run.command.has_ended)
        assert _has_ended(pid)

    scenario(node, work)


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_where_there_is_no_room_in_the_container_the_command_runs_all_the_same(node: Node, limit: int) -> None:
    if node.hierarchies.is_unified and limit < 3:
        pytest.skip("on cgroup version 2 crun itself needs room for two processes")

    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        assert (await probed.run("echo", "hello")).stdout == b"hello\n"

    scenario(node, work, resources={"pids": {"limit": limit}})


@pytest.mark.skipif(not Path("/sys/fs/cgroup/freezer").exists(), reason="the freezer of cgroup version 1 is another file")
def test_a_frozen_container_is_refused_and_nothing_hangs(node: Node) -> None:
    async def work(probed: Probed) -> None:
        await probed.until_one_waits()
        freezer = node.hierarchies.directory("freezer", probed.watched.cgroup)
        assert freezer is not None
        state = freezer / "freezer.state"
        state.write_text("FROZEN")
        try:
            await until(lambda: state.read_text() == "FROZEN\n")  # while it is FREEZING, crun goes on, and freezes as well
            with pytest.raises(ToolFailed, match="is paused"):
                await probed.run("true")
        finally:
            state.write_text("THAWED")
        assert (await probed.run("echo", "hello")).stdout == b"hello\n"

    scenario(node, work)


def test_what_crun_keeps_otherwise_is_left_alone(node: Node) -> None:
    async def work(probed: Probed) -> None:
        status = node.root / "state" / probed.watched.container_id / "status"
        content = status.read_bytes()
        status.write_text('{"pid": 1}')
        ahead = Ahead(node.root / "state", node.hierarchies)
        for _ in range(2):
            await ahead.hold(probed.runtime._program(), probed.command("true"))
        status.write_bytes(content)
        assert await ahead.take(probed.command("true")) is None
        assert waiting(probed.watched) == []

    scenario(node, work)
