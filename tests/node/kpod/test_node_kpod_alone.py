"""kpod without a daemon: who owns the root directory."""

import subprocess

import pytest
from kpod_node import Kpod

pytestmark = pytest.mark.node


@pytest.fixture
def alone(kpod: Kpod) -> Kpod:
    if kpod.daemon.process is not None:
        pytest.skip("this is about kpod by itself")
    return kpod


def test_two_cannot_own_one_root(alone: Kpod) -> None:
    process = alone.start("run", "--rm", alone.image, "sh", "-c", "echo up; read x < /dev/zero; sleep 1000")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        said = alone("ps")
        assert said.status == 1
        assert said.err == f"kpod: cannot open {alone.daemon.root}: process {process.pid} owns it; stop that one first\n"
    finally:
        process.terminate()
        process.terminate()
        process.communicate(timeout=60)


def test_the_daemon_takes_over_what_kpod_left_running(alone: Kpod) -> None:
    _, container_id = alone("run", "-d", "--name", "web", alone.image, "sleep", "1000").out.split()
    alone.daemon.start()
    try:
        assert alone("exec", "web", "--", "echo", "hi").out == "hi\n"
        assert alone.daemon.status(container_id).state == 1
        assert alone("rm", "-f", "web").status == 0
    finally:
        assert alone.daemon.stop() == 0
    assert subprocess.run(["test", "-e", alone.daemon.socket], check=False).returncode == 1
