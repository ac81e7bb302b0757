"""exec, attach and run with a terminal or with pipes, as a person at the node has them."""

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kpod_node import Kpod
from support.daemon import wait_for

pytestmark = pytest.mark.node
two_at_once = pytest.mark.parametrize("kpod", ["daemon"], indirect=True)  # without one, a kpod is the only owner

CTRL_C, CTRL_P, CTRL_Q = b"\x03", b"\x10", b"\x11"


@pytest.fixture
def box(kpod: Kpod) -> Iterator[str]:
    """A container that runs."""
    assert kpod("run", "-d", "--name", "box", kpod.image, "sleep", "1000").status == 0
    yield "box"
    assert kpod("rm", "-f", "box").status == 0


class Terminal:
    """kpod on a terminal of its own."""

    def __init__(self, kpod: Kpod, *arguments: object) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            kpod.argv(*arguments), env=kpod.environment(), stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True,
        )  # fmt: skip
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def until(self, pattern: bytes, limit_s: float = 60) -> bytes:
        """Read until the pattern has come; what came with it is taken."""
        deadline = time.monotonic() + limit_s
        while (match := re.search(pattern, self.seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not come: {self.seen!r}"
            if select.select([self.master], [], [], min(left, 0.5))[0]:
                self.seen += os.read(self.master, 65536)
        self.seen, found = self.seen[match.end() :], match[0]
        return found

    def end(self, limit_s: float = 60) -> int:
        """Its exit status; the terminal must be as it was."""
        status = self.process.wait(limit_s)
        assert termios.tcgetattr(self.slave) == self.before
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def terminal(kpod: Kpod, *arguments: object) -> Iterator[Terminal]:
    made = Terminal(kpod, *arguments)
    try:
        yield made
    finally:
        made.close()


def test_a_shell_on_a_terminal(kpod: Kpod, box: str) -> None:
    with terminal(kpod, "exec", "-it", box, "sh") as person:
        person.until(b"# ")
        person.type(b"stty size; tty; echo a$((1+1))b\n")
        person.until(rb"24 80\r\n/dev/pts/\d+\r\na2b\r\n")
        person.resize(50, 132)
        person.process.send_signal(signal.SIGWINCH)
        person.type(b"until stty size | grep -q '^50 132'; do :; done; echo resi''zed\n")
        person.until(b"resized")
        person.type(b"exit 7\n")
        assert person.end() == 7


def test_ctrl_c_reaches_the_process_and_not_kpod(kpod: Kpod, box: str) -> None:
    with terminal(
        kpod, "exec", "-it", box, "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    ) as person:
        person.until(b"ready")
        person.type(CTRL_C)
        person.until(b"caught")
        assert person.end() == 9


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_kpod_gives_the_terminal_back(kpod: Kpod, box: str, number: int, status: int) -> None:
    with terminal(kpod, "exec", "-it", box, "sh", "-c", "echo ready; exec sleep 987") as person:
        person.until(b"ready")
        person.process.send_signal(number)
        assert person.end() == status
    wait_for(lambda: "sleep 987" not in kpod("exec", box, "--", "ps").out)


def test_keys_let_go_of_the_session(kpod: Kpod, box: str) -> None:
    with terminal(kpod, "exec", "-it", box, "sh") as person:
        person.until(b"# ")
        person.type(CTRL_P + CTRL_Q)
        person.until(b"the session was ended, and the command with it")
        assert person.end() == 129


def test_other_keys_can_be_asked_for(kpod: Kpod, box: str) -> None:
    with terminal(kpod, "exec", "-it", "--detach-keys", "ctrl-x,x", box, "cat", "-v") as person:
        person.type(CTRL_P + b"q\n")
        person.until(rb"\^Pq\r\n\^Pq\r\n")
        person.type(b"\x18x")
        assert person.end() == 129


def test_pipes_are_exact_both_ways_and_streams_stay_apart(kpod: Kpod, box: str) -> None:
    content = os.urandom(8 << 20)
    said = subprocess.run(
        kpod.argv("exec", "-i", box, "sh", "-c", "tee /dev/stderr | sha256sum; exit 3"),
        env=kpod.environment(), input=content, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert said.returncode == 3
    assert said.stderr == content
    assert said.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_the_end_of_stdin_is_told_and_output_still_comes(kpod: Kpod, box: str) -> None:
    assert kpod("exec", "-i", box, "--", "sh", "-c", "cat; echo end", stdin=b"x\n").out == "x\nend\n"
    assert kpod("exec", box, "--", "sh", "-c", "cat; echo end", stdin=b"not sent\n").out == "end\n"


def test_a_command_that_does_not_read_its_stdin_ends(kpod: Kpod, box: str) -> None:
    assert kpod("exec", "-i", box, "--", "sh", "-c", "exec <&-; exit 5", stdin=b"x" * (4 << 20)).status == 5


@pytest.mark.parametrize(("command", "status"), [("/no/such", 127), ("no-such", 127), ("/etc", 126)])
def test_what_cannot_be_started_has_the_status_of_a_shell(kpod: Kpod, box: str, command: str, status: int) -> None:
    said = kpod("exec", box, "--", command)
    assert (said.status, said.out) == (status, "")
    assert said.err != ""


def test_a_command_that_takes_too_long_is_killed(kpod: Kpod, box: str) -> None:
    said = kpod("exec", "--timeout", "1", box, "--", "sleep", "876")
    assert said.status == 1
    assert "it took over 1 s and was killed" in said.err
    wait_for(lambda: "sleep 876" not in kpod("exec", box, "--", "ps").out)


def test_a_reader_that_goes_away_ends_it(kpod: Kpod, box: str) -> None:
    with kpod.start("exec", box, "--", "yes", "654") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "654\n"
        process.stdout.close()
        assert process.wait(60) == 1
    wait_for(lambda: "yes 654" not in kpod("exec", box, "--", "ps").out)


def test_a_terminal_is_asked_for_where_there_is_none(kpod: Kpod, box: str) -> None:
    said = kpod("exec", "-it", box, "sh")
    assert (said.status, said.err) == (2, "kpod: standard input is no terminal: leave -t out. See 'kpod exec --help'.\n")
    assert kpod("exec", "-t", box, "sh", "-c", "test -t 1 && echo terminal").out == "terminal\r\n"


@two_at_once
def test_one_can_attach_and_leave_and_come_back(kpod: Kpod) -> None:
    script = "trap 'echo bye; exit 4' USR1; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done"
    assert kpod("run", "-d", "--name", "box", kpod.image, "sh", "-c", script).status == 0
    with kpod.start("attach", "--no-stdin", "box") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("line ")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    with kpod.start("attach", "--no-stdin", "box") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("line ")
        assert kpod("exec", "box", "--", "kill", "-USR1", "1").status == 0
        rest, _ = process.communicate(timeout=60)
        assert (rest.endswith("bye\n"), process.returncode) == (True, 4)
    assert kpod("rm", "-f", "box").status == 0


@two_at_once
def test_the_end_of_stdin_ends_an_attach_and_the_container_goes_on(kpod: Kpod, tmp_path: Path) -> None:
    container = {"name": "box", "image": kpod.image, "imagePullPolicy": "IfNotPresent", "stdin": True}
    container["command"] = ["sh", "-c", "read word; echo got $word; sleep 1000"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box"}, "spec": {"containers": [container]}}
    manifest = tmp_path / "pod.json"
    manifest.write_text(json.dumps(pod))
    assert kpod("play", manifest).status == 0
    assert kpod("attach", "box", stdin=b"word\n").status == 0
    wait_for(lambda: kpod("logs", "box").out == "got word\n")
    assert kpod("rm", "-f", "box").status == 0


def test_run_on_a_terminal_loses_nothing(kpod: Kpod) -> None:
    with terminal(
        kpod, "run", "--rm", "-it", kpod.image, "sh", "-c", "echo first; read x; echo got $x; stty size; exit 6"
    ) as person:
        person.until(b"first\r\n")
        person.type(b"word\n")
        person.until(b"got word\r\n24 80\r\n")
        assert person.end() == 6


def test_run_takes_a_pipe_to_its_end(kpod: Kpod) -> None:
    content = os.urandom(2 << 20)
    argv = kpod.argv("run", "--rm", "-i", kpod.image, "sh", "-c", "sha256sum; echo err >&2; exit 2")
    said = subprocess.run(argv, env=kpod.environment(), input=content, capture_output=True, check=False, timeout=60)
    assert (said.returncode, said.stderr) == (2, b"err\n")
    assert said.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_one_can_leave_what_runs_on_a_terminal_and_come_back(kpod: Kpod) -> None:
    with terminal(kpod, "run", "-it", "--name", "box", kpod.image, "sh") as person:
        person.until(b"# ")
        person.type(CTRL_P + CTRL_Q)
        person.until(b"pod box goes on")
        assert person.end() == 0
    with terminal(kpod, "attach", "box") as person:
        person.type(b"echo b''ack; exit 3\n")
        person.until(b"back\r\n")
        assert person.end() == 3
    assert kpod("rm", "-f", "box").status == 0


def test_a_signal_stops_what_runs_on_a_terminal(kpod: Kpod) -> None:
    with terminal(
        kpod, "run", "--rm", "-it", kpod.image, "sh", "-c", "trap 'exit 8' TERM; echo up; while :; do sleep 0.1; done"
    ) as person:
        person.until(b"up")
        person.process.send_signal(signal.SIGTERM)
        assert person.end() == 8
