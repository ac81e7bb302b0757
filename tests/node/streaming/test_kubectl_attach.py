"""kubectl attach: a running container's own streams."""

import os
import signal
from typing import Any

import pytest
from support.apiserver import ApiServer, Served
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.kubectl import Kubectl

pytestmark = [pytest.mark.node, pytest.mark.skipif(os.geteuid() != 0, reason="runs containers: needs root")]

EXITED = pb.CONTAINER_EXITED
RUNNING = pb.CONTAINER_RUNNING


class Box:
    """Makes the container that kubectl knows as `box`."""

    def __init__(self, daemon: Daemon, server: ApiServer, image: str) -> None:
        self._daemon, self._server, self._image = daemon, server, image

    def __call__(self, *command: str, stdin: bool = False, tty: bool = False, **fields: Any) -> str:
        config = self._daemon.container_config(self._image, *command)
        config.stdin, config.tty = stdin, tty
        for name, value in fields.items():
            setattr(config, name, value)
        pod = self._daemon.run_pod()
        container = self._daemon.run_container(pod, config)
        self._server.serve("box", pod, main=Served(container, tty=tty, stdin=stdin))
        return container


@pytest.fixture
def box(daemon: Daemon, server: ApiServer, image: str) -> Box:
    return Box(daemon, server, image)


def test_output_is_shown_from_now_on_and_apart(kubectl: Kubectl, box: Box) -> None:
    box("sh", "-c", "while sleep 0.1; do echo out; echo err >&2; done")
    with kubectl.running("attach", "box") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"out\n"] * 3
        assert b"err\n" in [process.stderr.readline() for _ in range(5)]


def test_client_ends_well_when_the_container_does(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", "-c", "until test -e /tmp/go; do echo wait; sleep 0.1; done; echo last words")
    with kubectl.running("attach", "box") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"wait\n"
        daemon.output(container, "touch", "/tmp/go")
        assert process.stdout.read().splitlines()[-1] == b"last words"
        assert process.wait(30) == 0


def test_stdin_reaches_the_container_from_one_client_after_another(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", "-c", 'while read line; do echo "got $line"; done', stdin=True)
    for word in (b"one", b"two"):
        with kubectl.running("attach", "-i", "box") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got " + word + b"\n"
    assert daemon.status(container).state == RUNNING


def test_stdin_once_ends_with_its_first_client(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", "-c", "cat; echo the end", stdin=True, stdin_once=True)
    with kubectl.running("attach", "-i", "box") as process:
        output, _ = process.communicate(b"some words\n", timeout=60)
    assert output == b"some words\nthe end\n"
    daemon.wait_state(container, EXITED)


def test_stdin_once_takes_megabytes(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", "-c", "wc -c", stdin=True, stdin_once=True)
    with kubectl.running("attach", "-i", "box") as process:
        output, _ = process.communicate(b"x" * (16 << 20), timeout=60)
    assert output.split() == [b"%d" % (16 << 20)]
    daemon.wait_state(container, EXITED)


def test_terminal_is_the_containers(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", stdin=True, tty=True)
    with kubectl.terminal("attach", "-it", "box", rows=33, columns=101) as terminal:
        terminal.type(b"while test \"$(stty size)\" != '33 101'; do sleep 0.1; done; echo size is there | tr a-z A-Z\n")
        terminal.wait_text(b"SIZE IS THERE")
        terminal.resize(44, 111)
        terminal.type(b"while test \"$(stty size)\" != '44 111'; do sleep 0.1; done; echo again | tr a-z A-Z; exit\n")
        terminal.wait_text(b"AGAIN")
        assert terminal.wait_end() == 0
    daemon.wait_state(container, EXITED)


def test_all_clients_see_the_output(kubectl: Kubectl, box: Box) -> None:
    box("sh", "-c", "while sleep 0.1; do echo out; done")
    with kubectl.running("attach", "box") as one, kubectl.running("attach", "box") as two:
        assert one.stdout is not None
        assert two.stdout is not None
        assert [one.stdout.readline(), two.stdout.readline(), one.stdout.readline()] == [b"out\n"] * 3


def test_killed_client_does_not_trouble_the_container_or_its_log(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", "-c", "n=0; while sleep 0.05; do n=$((n+1)); echo line $n; done")
    with kubectl.running("attach", "box") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    seen = len(daemon.container_log(container).splitlines())
    wait_for(lambda: len(daemon.container_log(container).splitlines()) > seen + 5)
    lines = daemon.container_log(container).splitlines()
    assert lines == [f"line {n + 1}" for n in range(len(lines))]


def test_container_held_back_by_a_client_goes_on_when_that_is_gone(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    word = "y" * 999
    wait = "until test -e /tmp/go; do echo wait; sleep 0.1; done"
    container = box("sh", "-c", f"{wait}; yes {word} | head -c 60000000; echo the end")
    with kubectl.running("attach", "box") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"wait\n"  # and nobody reads any more
        daemon.output(container, "touch", "/tmp/go")
        wait_for(lambda: "yyyy" in daemon.container_log(container))
        process.send_signal(signal.SIGKILL)
    daemon.wait_state(container, EXITED, 60)
    log = daemon.container_log(container)  # its lines may be parts of ours
    assert (log.count("y"), log.splitlines()[-1]) == (60_000 * len(word), "the end")


def test_stopped_container_is_refused(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sleep", "1000")
    daemon.stop_container(container)
    done = kubectl("attach", "box")
    assert done.returncode != 0
    assert b"exited" in done.stderr.lower() or b"not running" in done.stderr.lower()


def test_container_that_is_stopped_ends_the_clients(kubectl: Kubectl, box: Box, daemon: Daemon) -> None:
    container = box("sh", "-c", "while sleep 0.1; do echo out; done", stdin=True)
    with kubectl.running("attach", "-i", "box") as process:
        assert process.stdout is not None
        process.stdout.readline()
        daemon.stop_container(container)
        assert process.wait(30) == 0
