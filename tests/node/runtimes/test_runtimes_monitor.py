"""What the monitor gives: control fifo, attach socket, its cgroup, and what happens when it dies."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from handmade import PARENT, Node
from support.waiting import until

from criollo.errors import HostFailed, WrongState
from criollo.linux import cgroup, procfs
from criollo.monitor import console
from criollo.monitor.exits import MONITOR_LOST
from criollo.runtimes.oci import OciRuntime

pytestmark = pytest.mark.node


def test_reopened_log_takes_over(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> tuple[bytes, bytes]:
        request = node.request(["sh", "-c", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done"])
        watched = await node.start(runtime, request)
        log, rotated = Path(request.log_path), Path(request.log_path + ".1")
        await until(lambda: log.stat().st_size > 0)
        log.rename(rotated)
        await console.reopen_log(request.container_id, request.bundle, log_path=log)
        old = rotated.read_bytes()
        await until(lambda: log.stat().st_size > 0)
        await node.remove(runtime, watched)
        assert rotated.read_bytes() == old
        return old, log.read_bytes()

    old, new = asyncio.run(scenario())
    lines = [int(line.split()[-1]) for line in (old + new).splitlines()]
    assert lines == list(range(1, len(lines) + 1))


def test_reopen_without_a_directory_spares_the_monitor(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        with pytest.raises(HostFailed, match="no directory"):
            await console.reopen_log(request.container_id, request.bundle, log_path=node.root / "gone/log")
        assert procfs.is_alive(watched.monitor_pid, watched.monitor_started)
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_reopen_after_the_end_is_the_wrong_moment(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["true"])
        await node.run(runtime, request)
        with pytest.raises(WrongState, match="without a living monitor"):
            await console.reopen_log(request.container_id, request.bundle, log_path=Path(request.log_path))

    asyncio.run(scenario())


def test_resize_reaches_the_terminal(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sh", "-c", "while :; do stty size; sleep 0.01; done"], tty=True)
        watched = await node.start(runtime, request)
        console.resize(request.container_id, request.bundle, rows=33, columns=99)
        await until(lambda: b"33 99" in Path(request.log_path).read_bytes())
        await node.remove(runtime, watched)

    asyncio.run(scenario())


def test_attach_socket_feeds_stdin_and_shows_stdout(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> bytes:
        request = node.request(["cat"], stdin=True, stdin_once=True)
        watched = await node.start(runtime, request)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            with console.attach_address(request.bundle) as address:
                client.connect(address)
            client.send(b"hello\n")
            answer = await asyncio.get_running_loop().run_in_executor(None, client.recv, 8193)
            client.shutdown(socket.SHUT_WR)
            exit_ = await runtime.wait_exit(watched)
        await node.remove(runtime, watched)
        assert exit_.code == 0
        return answer

    assert asyncio.run(scenario()) == b"\x02hello\n"


def test_attach_link_of_any_length(node: Node, runtime: OciRuntime) -> None:
    async def scenario(directory: Path) -> None:
        directory.mkdir(parents=True)
        node.conmon.attach_dir = directory
        request = node.request(["sleep", "1000"])
        watched = await node.start(runtime, request)
        assert (request.bundle / "attach").is_socket()
        await node.remove(runtime, watched)
        assert list(directory.iterdir()) == []

    stem = str(node.root / "links")
    for length in (41, 42, 43, 44, 150):
        asyncio.run(scenario(Path(stem.ljust(length, "x"))))


def test_lost_monitor_ends_its_container(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        watched = await node.start(runtime, node.request(["sh", "-c", "sleep 1001 & sleep 1000"]))
        os.kill(watched.monitor_pid, signal.SIGKILL)
        exit_ = await runtime.wait_exit(watched)
        assert (exit_.code, exit_.reason) == (137, MONITOR_LOST)
        assert not procfs.is_alive(watched.pid, watched.pid_started)
        assert node.hierarchies.processes(watched.cgroup) == []
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_monitor_sits_in_the_pod_but_not_in_its_memory(node: Node) -> None:
    async def scenario() -> None:
        runtime = node.runtime("crun", monitor_cgroup="pod")
        watched = await node.start(runtime, node.request(["sleep", "1000"]))
        places = cgroup.of_process(watched.monitor_pid)
        assert places["pids"] == f"{PARENT}/crio-conmon-{watched.container_id}"
        assert not places["memory"].startswith(PARENT)
        await node.remove(runtime, watched)
        assert not node.hierarchies.exists(f"{PARENT}/crio-conmon-{watched.container_id}")

    asyncio.run(scenario())


def test_process_outliving_the_first_one_is_killed(node: Node, runtime: OciRuntime) -> None:
    async def scenario() -> None:
        request = node.request(["sh", "-c", "sleep 1001 & exit 0"])
        config = request.bundle / "config.json"
        config.write_text(config.read_text().replace('{"type": "pid"}, ', ""))  # the host's PID namespace
        watched = await node.start(runtime, request)
        await until(lambda: not procfs.is_alive(watched.pid, watched.pid_started))
        await runtime.kill_all(watched)
        assert node.hierarchies.processes(watched.cgroup) == []
        await runtime.wait_exit(watched)
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())
