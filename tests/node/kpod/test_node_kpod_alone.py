"""kpod without a daemon: who owns the root directory."""

import subprocess

import pytest
from kpod_node import Kpod

pytestmark = [pytest.mark.node, pytest.mark.parametrize("kpod", ["alone"], indirect=True)]


def test_two_cannot_own_one_root(kpod: Kpod) -> None:
    script = "trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done"
    with kpod.start("run", "--rm", kpod.image, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        said = kpod("ps")
        assert said.status == 1
        assert said.err == f"kpod: cannot open {kpod.daemon.root}: process {process.pid} owns it; stop that one first\n"


def test_the_daemon_takes_over_what_kpod_left_running(kpod: Kpod) -> None:
    _, container_id = kpod("run", "-d", "--name", "web", kpod.image, "sleep", "1000").out.split()
    kpod.daemon.start()
    try:
        assert kpod("exec", "web", "--", "echo", "hi").out == "hi\n"
        assert kpod.daemon.status(container_id).state == 1
        assert kpod("rm", "-f", "web").status == 0
    finally:
        assert kpod.daemon.stop() == 0
    assert subprocess.run(["test", "-e", kpod.daemon.socket], check=False).returncode == 1


def test_a_daemon_removes_the_socket_of_a_kpod_that_was_killed(kpod: Kpod) -> None:
    socket = kpod.daemon.runroot / "kpod.sock"
    with kpod.start("run", "--rm", "--name", "web", kpod.image, "sh", "-c", "echo up; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert socket.exists()
    kpod.daemon.start()
    try:
        assert not socket.exists()
        assert kpod("rm", "-f", "web").status == 0
    finally:
        assert kpod.daemon.stop() == 0
