"""A daemon that has no descriptor left: what it cannot do is told, what runs goes on, what ended is known afterwards."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.scarcity import free_descriptors

pytestmark = pytest.mark.node

KNOBS = {"sweep_s": 0.3, "monitor_s": 1}


@pytest.fixture(autouse=True)
def lives_on(daemon: Daemon) -> Iterator[None]:
    pid = daemon.pid
    yield
    assert daemon.process is not None
    assert daemon.process.poll() is None
    assert daemon.pid == pid


def lives(daemon: Daemon) -> bool:
    return daemon.process is not None and daemon.process.poll() is None


def test_whatever_has_no_descriptor_ends_neither_the_daemon_nor_a_container(daemon: Daemon, image: str) -> None:
    """With none free, one, two and so on: the lack comes at another step each time."""
    pod = daemon.run_pod()
    running = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="before"))
    for count in range(24):
        config = daemon.container_config(image, "sleep", "1000", name=f"with-{count}")
        with free_descriptors(daemon.pid, count), contextlib.suppress(grpc.RpcError):
            container = daemon.create(pod, config)
            daemon.start_container(container)
        assert lives(daemon), (count, daemon.log()[-3000:])
        assert daemon.status(running).state == pb.CONTAINER_RUNNING
        for each in daemon.cri.call("ListContainers").containers:
            if each.id != running:
                assert each.state != pb.CONTAINER_EXITED, (count, daemon.status(each.id))
                daemon.remove_container(each.id)
    assert daemon.output(running, "echo", "runs") == "runs\n"


def test_an_exit_that_no_descriptor_is_there_for_is_told_as_it_was(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    names = [f"ends-{number}" for number in range(4)]
    containers = [
        daemon.run_container(
            pod, daemon.container_config(image, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done", name=name)
        )
        for name in names
    ]
    for container in containers:
        daemon.output(container, "true")
    with free_descriptors(daemon.pid, 0):
        for container in containers:
            os.kill(daemon.info(container)["pid"], signal.SIGTERM)
        wait_for(lambda: all(not os.path.exists(f"/proc/{daemon.info(each)['pid']}") for each in containers))
    for container in containers:
        status = daemon.wait_state(container, pb.CONTAINER_EXITED)
        assert status.exit_code == 7, (status.message, daemon.log()[-2500:])


@pytest.mark.parametrize("free", [0, 1, 2])
def test_a_kill_for_memory_that_no_descriptor_is_there_for_is_told_as_it_was(
    daemon: Daemon, image: str, tmp_path: Path, free: int
) -> None:
    script = "while [ ! -e /v/go ]; do sleep 0.05; done; exec tail /dev/zero"
    config = daemon.container_config(image, "sh", "-c", script)
    config.linux.resources.memory_limit_in_bytes = 32 << 20
    config.mounts.add(container_path="/v", host_path=str(tmp_path))
    container = daemon.run_container(daemon.run_pod(), config)
    pid = daemon.info(container)["pid"]
    with free_descriptors(daemon.pid, free):
        (tmp_path / "go").touch()
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    status = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137), daemon.log()[-2500:]
