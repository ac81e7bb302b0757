"""kubectl exec and cp: what a person at a terminal and a program at a pipe get."""

import hashlib
import os
import random
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.apiserver import ApiServer, Served
from support.daemon import Daemon, wait_for
from support.kubectl import Kubectl, program

pytestmark = [pytest.mark.node, pytest.mark.skipif(os.geteuid() != 0, reason="runs containers: needs root")]

MIB = 1 << 20
LINE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"


def processes(daemon: Daemon, container: str) -> str:
    return daemon.output(container, "ps", "-o", "args")


def test_standard_output_and_error_arrive_apart_with_the_exit_code(kubectl: Kubectl, web: str) -> None:
    done = kubectl("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr.splitlines() == [b"err", b"command terminated with exit code 7"]


def test_success_is_silent(kubectl: Kubectl, web: str) -> None:
    done = kubectl("exec", "web", "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(("kind", "protocol"), [("spdy", "v4.channel.k8s.io"), ("websocket", "v5.channel.k8s.io")])
def test_each_client_gets_the_newest_protocol_it_knows(
    kind: str, protocol: str, server: ApiServer, web: str, tmp_path: Path
) -> None:
    if (found := program(kind)) is None:
        pytest.skip("this kubectl is not there: scripts/setup.sh fetches it")
    assert Kubectl(found, server.url, tmp_path)("exec", "web", "--", "true").returncode == 0
    (upgrade,) = server.upgrades
    assert (upgrade[0], upgrade[1][0], upgrade[2]) == ("exec", protocol, "HTTP/1.1 101 Switching Protocols")


def test_without_stdin_the_command_reads_the_end_at_once(kubectl: Kubectl, web: str) -> None:
    assert kubectl("exec", "web", "--", "cat").returncode == 0


def test_stdin_arrives_whole_with_its_end(kubectl: Kubectl, web: str) -> None:
    content = random.Random(1).randbytes(64 * MIB + 17)
    done = kubectl("exec", "-i", "web", "--", "sha256sum", stdin=content)
    assert done.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_hundreds_of_megabytes_of_output_arrive_whole(kubectl: Kubectl, web: str) -> None:
    total, wanted = 320 * MIB, hashlib.sha256()
    for _ in range(320):
        wanted.update(LINE * (MIB // len(LINE)))
    command = f"yes {LINE.decode().strip()} | head -c {total}"
    with kubectl.running("exec", "web", "--", "sh", "-c", command, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        seen, count = hashlib.sha256(), 0
        while chunk := process.stdout.read(MIB):
            seen.update(chunk)
            count += len(chunk)
        assert process.wait(30) == 0
    assert (count, seen.hexdigest()) == (total, wanted.hexdigest())


def test_both_ways_at_once_lose_nothing(kubectl: Kubectl, web: str) -> None:
    content = random.Random(2).randbytes(48 * MIB)
    done = kubectl("exec", "-i", "web", "--", "cat", stdin=content)
    assert (done.returncode, hashlib.sha256(done.stdout).digest()) == (0, hashlib.sha256(content).digest())


def test_last_output_before_a_failure_is_not_cut(kubectl: Kubectl, web: str) -> None:
    done = kubectl("exec", "web", "--", "sh", "-c", f"yes | head -c {8 * MIB}; yes no | head -c {4 * MIB} >&2; exit 3")
    assert (done.returncode, len(done.stdout)) == (3, 8 * MIB)
    assert len(done.stderr) == 4 * MIB + len("command terminated with exit code 3\n")


def test_command_that_stops_reading_ends_although_stdin_goes_on(kubectl: Kubectl, web: str) -> None:
    done = kubectl("exec", "-i", "web", "--", "head", "-c", "5", stdin=b"a" * (32 * MIB))
    assert (done.returncode, done.stdout) == (0, b"aaaaa")


def test_reader_that_waits_holds_back_the_command_and_loses_nothing(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    command = f"yes | head -c {256 * MIB}; touch /tmp/done"
    with kubectl.running("exec", "web", "--", "sh", "-c", command) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"y\n"  # and now nobody reads for a while
        resident = _resident_kib(daemon.pid)
        daemon.output(web, "sh", "-c", "sleep 1; test ! -e /tmp/done")
        assert _resident_kib(daemon.pid) < resident + 32 * 1024
        count = 2
        while chunk := process.stdout.read(MIB):
            count += len(chunk)
        assert (count, process.wait(30)) == (256 * MIB, 0)


def test_unknown_program_is_named(kubectl: Kubectl, web: str) -> None:
    done = kubectl("exec", "web", "--", "no-such-program")
    assert done.returncode != 0
    assert b"no-such-program" in done.stdout + done.stderr


def test_stopped_container_is_refused_with_its_state(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    daemon.stop_container(web)
    done = kubectl("exec", "web", "--", "true")
    assert done.returncode != 0
    assert b"exited" in done.stderr.lower() or b"not running" in done.stderr.lower()


def test_container_that_stops_ends_the_command(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    with kubectl.running("exec", "web", "--", "sh", "-c", "echo here; exec sleep 4242") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        daemon.stop_container(web)
        assert process.wait(30) != 0


def test_killed_client_takes_its_command_with_it(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    with kubectl.running("exec", "-i", "web", "--", "sh", "-c", "echo here; exec sleep 4243") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert "sleep 4243" in processes(daemon, web)
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: "sleep 4243" not in processes(daemon, web))


def test_client_killed_amid_a_flood_leaves_no_command(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    with kubectl.running("exec", "web", "--", "yes", "flood") as process:
        assert process.stdout is not None
        process.stdout.read(MIB)
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: "yes flood" not in processes(daemon, web))


def test_many_commands_at_once_get_their_own_output(kubectl: Kubectl, web: str) -> None:
    kubectl("get", "pods")  # discovery is cached once, not by twenty at a time
    with ThreadPoolExecutor(10) as pool:
        done = list(
            pool.map(lambda n: kubectl("exec", "-i", "web", "--", "sh", "-c", f"cat; exit {n}", stdin=b"%d" % n), range(20))
        )
    assert [(each.returncode, each.stdout) for each in done] == [(n, b"%d" % n) for n in range(20)]


def test_terminal_has_its_size_and_follows_it(kubectl: Kubectl, web: str) -> None:
    with kubectl.terminal("exec", "-it", "web", "--", "sh", rows=31, columns=97) as terminal:
        terminal.type(
            b"tty; while test \"$(stty size)\" != '31 97'; do sleep 0.1; done; echo first-size-is-there | tr a-z A-Z\n"
        )
        assert b"/dev/pts/" in terminal.wait_text(b"FIRST-SIZE-IS-THERE")
        terminal.resize(50, 132)
        terminal.type(
            b"while test \"$(stty size)\" != '50 132'; do sleep 0.1; done; echo second-is-there | tr a-z A-Z; exit 5\n"
        )
        terminal.wait_text(b"SECOND-IS-THERE")
        assert terminal.wait_end() == 5


def test_interrupt_key_reaches_the_command(kubectl: Kubectl, web: str) -> None:
    with kubectl.terminal("exec", "-it", "web", "--", "sh") as terminal:
        terminal.type(b"echo ready | tr a-z A-Z; sleep 4244\n")
        terminal.wait_text(b"READY")
        terminal.type(b"\x03")
        terminal.type(b"echo still here | tr a-z A-Z\n")
        terminal.wait_text(b"STILL HERE")
        terminal.type(b"\x04")
        assert terminal.wait_end() == 0


def test_closed_terminal_ends_the_shell_behind_it(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    with kubectl.terminal("exec", "-it", "web", "--", "sh", "-c", "echo ready; exec sleep 4245") as terminal:
        terminal.wait_text(b"ready")
        terminal.hang_up()
        wait_for(lambda: "sleep 4245" not in processes(daemon, web))


def test_output_of_a_terminal_is_not_cut_at_its_end(kubectl: Kubectl, web: str) -> None:
    with kubectl.terminal("exec", "-it", "web", "--", "sh", "-c", "seq 1 20000; echo end; exit 4") as terminal:
        shown = terminal.wait_text(b"end")
        assert terminal.wait_end() == 4
    assert [int(word) for word in shown.split()[:-1] if word.isdigit()] == list(range(1, 20001))


def test_directory_is_copied_out_and_in_again(kubectl: Kubectl, web: str, daemon: Daemon, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    wanted = _make_files(source)
    assert kubectl("cp", str(source), "web:/tmp/copied").returncode == 0
    assert kubectl("cp", "web:/tmp/copied", str(back)).returncode == 0
    assert {path.relative_to(back).as_posix(): path.read_bytes() for path in back.rglob("*") if path.is_file()} == wanted


def test_file_copied_in_is_the_containers_file(kubectl: Kubectl, web: str, daemon: Daemon, tmp_path: Path) -> None:
    content = random.Random(3).randbytes(40 * MIB)
    (tmp_path / "large").write_bytes(content)
    assert kubectl("cp", str(tmp_path / "large"), "web:/tmp/large").returncode == 0
    assert daemon.output(web, "sha256sum", "/tmp/large").split()[0] == hashlib.sha256(content).hexdigest()


def test_daemon_that_stops_lets_go_of_its_clients(kubectl: Kubectl, web: str, daemon: Daemon) -> None:
    with kubectl.running("exec", "-i", "web", "--", "sh", "-c", "echo here; exec sleep 4246") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        stopper = threading.Thread(target=daemon.stop)
        stopper.start()
        assert process.wait(60) != 0
        stopper.join()
    daemon.start()
    wait_for(lambda: "sleep 4246" not in processes(daemon, web))


def test_second_container_of_the_pod_is_found_by_name(
    kubectl: Kubectl, web: str, server: ApiServer, daemon: Daemon, image: str
) -> None:
    pod, containers = server.pods["web"]
    other = daemon.container_config(image, "sleep", "100000", name="other")
    other.envs.add(key="WHO", value=b"the other")
    server.serve("web", pod, **containers, other=Served(daemon.run_container(pod, other)))
    assert kubectl("exec", "web", "-c", "other", "--", "sh", "-c", "echo $WHO").stdout == b"the other\n"


def _make_files(directory: Path) -> dict[str, bytes]:
    source = random.Random(4)
    files = {f"{number % 7}/file {number}": source.randbytes(number * 50) for number in range(200)}
    files |= {"large": source.randbytes(20 * MIB), "empty": b""}
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
