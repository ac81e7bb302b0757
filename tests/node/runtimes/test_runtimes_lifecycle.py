"""Create, start, signal, exit, delete, with real conmon and real runtimes."""

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest
from handmade import PARENT, Node
from support.waiting import until

from criollo.errors import ToolFailed
from criollo.linux import procfs, proctree
from criollo.runtimes.oci import OciRuntime
from criollo.wire.crilog import LogReader
from criollo.wire.runtime import Status

pytestmark = pytest.mark.node


def test_exit_code_and_time_are_the_containers(node: Node, runtime: OciRuntime) -> None:
    before = time.time_ns()
    exit_ = asyncio.run(node.run(runtime, node.request(["sh", "-c", "exit 7"])))
    assert (exit_.code, exit_.oom_killed, exit_.reason) == (7, False, "")
    assert before <= exit_.at_ns <= time.time_ns()


def test_created_names_living_processes(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        assert procfs.is_alive(watched.pid, watched.pid_started)
        assert procfs.is_alive(watched.monitor_pid, watched.monitor_started)
        assert proctree.parent(watched.pid) == watched.monitor_pid
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_states_follow_the_life(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> list[object]:
        seen: list[object] = []
        request = node.request(["sleep", "1000"])
        seen.append(await runtime.state(request.container_id))
        await runtime.probe()
        watched = node.watched(request, await runtime.create(request))
        seen.append((await runtime.state(request.container_id)).status)  # type: ignore[union-attr]
        await runtime.start(request.container_id, has_poststart=False)
        seen.append((await runtime.state(request.container_id)).status)  # type: ignore[union-attr]
        await runtime.kill(watched, signal.SIGKILL)
        await runtime.wait_exit(watched)
        seen.append((await runtime.state(request.container_id)).status)  # type: ignore[union-attr]
        await runtime.delete(request.container_id, cgroup_parent=PARENT)
        seen.append(await runtime.state(request.container_id))
        return seen

    assert asyncio.run(scenario()) == [None, Status.CREATED, Status.RUNNING, Status.STOPPED, None]


def test_second_start_is_refused_by_the_runtime(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        with pytest.raises(ToolFailed):
            await runtime.start(request.container_id, has_poststart=False)
        assert procfs.is_alive(watched.pid, watched.pid_started)
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_start_of_one_that_died_waiting_is_refused_by_the_runtime(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        await runtime.probe()
        request = node.request(["sleep", "1000"])
        watched = node.watched(request, await runtime.create(request))
        await runtime.kill(watched, signal.SIGKILL)
        await runtime.wait_exit(watched)
        with pytest.raises(ToolFailed):
            await runtime.start(request.container_id, has_poststart=False)
        await runtime.delete(request.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_poststart_hooks_run(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        await runtime.probe()
        request = node.request(["sleep", "1000"])
        mark = request.bundle / "mark"
        script = f"cat >/dev/null; echo done > {mark}"  # crun dies of SIGPIPE when a hook ends before it was told the state
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
        spec = json.loads((request.bundle / "config.json").read_text())
        (request.bundle / "config.json").write_text(json.dumps({**spec, "hooks": {"poststart": [hook]}}))
        watched = node.watched(request, await runtime.create(request))
        await runtime.start(request.container_id, has_poststart=True)
        assert mark.read_text() == "done\n"
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_signal_reaches_the_first_process(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> int:
        request = node.request(["sh", "-c", "trap 'exit 42' TERM; touch /tmp/ready; while :; do sleep 0.01; done"])
        watched = await node.start(runtime, request)
        await until((node.rootfs / "tmp/ready").exists)
        assert await runtime.kill(watched, signal.SIGTERM)
        exit_ = await runtime.wait_exit(watched)
        await node.remove(runtime, watched)
        return exit_.code

    assert asyncio.run(scenario()) == 42


def test_kill_gives_137_and_then_nobody_to_kill(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        watched = await node.start(runtime, node.request(["sleep", "1000"]))
        assert await runtime.kill(watched, signal.SIGKILL)
        assert (await runtime.wait_exit(watched)).code == 137
        assert not await runtime.kill(watched, signal.SIGKILL)
        assert (await runtime.wait_exit(watched)).code == 137
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_kill_spares_a_stranger_with_the_same_pid(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        watched = await node.start(runtime, node.request(["sleep", "1000"]))
        assert not await runtime.kill(watched._replace(pid_started=watched.pid_started - 1), signal.SIGKILL)
        assert procfs.is_alive(watched.pid, watched.pid_started)
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_delete_refuses_a_running_container_unless_forced(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        watched = await node.start(runtime, node.request(["sleep", "1000"]))
        with pytest.raises(ToolFailed):
            await runtime.delete(watched.container_id, cgroup_parent=PARENT)
        assert procfs.is_alive(watched.pid, watched.pid_started)
        await runtime.delete(watched.container_id, cgroup_parent=PARENT, force=True)
        assert (await runtime.wait_exit(watched)).code == 137  # by then the monitor is gone
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_create_and_delete_without_start(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        await runtime.probe()
        await node.remove(runtime, node.watched(request, await runtime.create(request)))

    asyncio.run(scenario())


def test_log_has_both_streams_whole(node: Node, runtime: OciRuntime) -> None:
    request = node.request(["sh", "-c", "echo out; echo err >&2; printf unfinished"])
    asyncio.run(node.run(runtime, request))
    entries = list(LogReader().receive(Path(request.log_path).read_bytes()))
    assert sorted((entry.stream, entry.partial, entry.content) for entry in entries) == [
        ("stderr", False, b"err"),
        ("stdout", False, b"out"),
        ("stdout", True, b"unfinished"),
    ]


def test_no_log_path_means_no_log(node: Node, runtime: OciRuntime) -> None:
    asyncio.run(node.run(runtime, node.request(["echo", "hello"], log_path="")))
    assert list((node.root / "logs").iterdir()) == []


def test_oom_kill_is_seen(node: Node, runtime: OciRuntime) -> None:
    limit = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    request = node.request(["dd", "if=/dev/zero", "of=/dev/null", "bs=100M"], resources=limit)
    exit_ = asyncio.run(node.run(runtime, request))
    assert (exit_.code, exit_.oom_killed) == (137, True)


def test_update_changes_the_limit(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> int:
        watched = await node.start(runtime, node.request(["sleep", "1000"]))
        await runtime.update(watched.container_id, b'{"memory":{"limit":67108864},"cpu":{"shares":512}}')
        place = node.hierarchies.directory("memory", watched.cgroup)
        assert place is not None
        name = "memory.limit_in_bytes" if (place / "memory.limit_in_bytes").exists() else "memory.max"
        limit = int((place / name).read_text())
        with pytest.raises(ToolFailed):
            await runtime.update(watched.container_id, b"{")
        await node.remove(runtime, watched)
        return limit

    assert asyncio.run(scenario()) == 67108864


def test_wait_by_a_later_daemon_finds_the_exit(node: Node, runtime: OciRuntime) -> None:
    async def first() -> object:
        return await node.start(runtime, node.request(["sh", "-c", "exit 5"]))

    async def second(watched: object) -> int:
        code = (await runtime.wait_exit(watched)).code  # type: ignore[arg-type]
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)  # type: ignore[attr-defined]
        return code

    assert asyncio.run(second(asyncio.run(first()))) == 5
