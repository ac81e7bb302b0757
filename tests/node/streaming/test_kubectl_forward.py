"""kubectl port-forward: connections into a pod's network."""

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.apiserver import ApiServer, Served
from support.daemon import Daemon, wait_for
from support.echo import echoing
from support.kubectl import Kubectl

pytestmark = [pytest.mark.node, pytest.mark.skipif(os.geteuid() != 0, reason="runs containers: needs root")]

MIB = 1 << 20
SUM, SOURCE, FREE = 7001, 7002, 7009


@pytest.fixture
def served(daemon: Daemon, server: ApiServer, image: str) -> str:
    """The id of a pod that answers on some ports; kubectl knows it as `web`."""
    listen = [
        f"nc -ll -p {SUM} -e sha256sum &",
        f"nc -ll -p {SOURCE} -e sh -c 'yes | head -c {200 * MIB}' &",
        "exec sleep 100000",
    ]
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sh", "-c", "\n".join(listen)))
    server.serve("web", pod, main=Served(container))
    ports = [f":{port:04X} " for port in (SUM, SOURCE)]
    wait_for(lambda: all(port in daemon.output(container, "cat", "/proc/net/tcp", "/proc/net/tcp6") for port in ports))
    return pod


@pytest.fixture
def echo(served: str, daemon: Daemon) -> Iterator[int]:
    """The port of the pod where what is sent comes back. Not of busybox: its nc lets one connection wait and loses more."""
    with echoing(daemon.runroot / "netns" / served) as port:
        yield port


@contextlib.contextmanager
def forwarded(kubectl: Kubectl, *ports: int) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """A running port-forward and its local ports."""
    with kubectl.running("port-forward", "web", *(f":{port}" for port in ports), "--address", "127.0.0.1") as process:
        assert process.stdout is not None
        local = []
        for _ in ports:
            line = process.stdout.readline()
            assert line.startswith(b"Forwarding from"), process.stderr.read() if process.stderr else line
            local.append(int(line.split(b":")[1].split()[0]))
        yield process, local


def ask(port: int, content: bytes) -> bytes:
    """What comes back after everything was sent and our half was closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(_send, sock, content)
            answer = bytearray()
            while chunk := sock.recv(MIB):
                answer += chunk
            sending.result()
        return bytes(answer)


def _send(sock: socket.socket, content: bytes) -> None:
    sock.sendall(content)
    sock.shutdown(socket.SHUT_WR)


def test_what_is_sent_comes_back(kubectl: Kubectl, served: str, echo: int) -> None:
    with forwarded(kubectl, echo) as (_, (port,)):
        assert ask(port, b"hello") == b"hello"


def test_closed_half_leaves_the_other_open(kubectl: Kubectl, served: str) -> None:
    content = random.Random(1).randbytes(100 * MIB + 1)
    with forwarded(kubectl, SUM) as (_, (port,)):
        assert ask(port, content).split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_hundreds_of_megabytes_come_out_whole(kubectl: Kubectl, served: str) -> None:
    with forwarded(kubectl, SOURCE) as (_, (port,)):
        assert hashlib.sha256(ask(port, b"")).digest() == hashlib.sha256(b"y\n" * (100 * MIB)).digest()


def test_hundred_connections_at_once_lose_nothing(kubectl: Kubectl, served: str, echo: int) -> None:
    contents = [random.Random(number).randbytes(200_000 + number) for number in range(100)]
    with forwarded(kubectl, echo) as (_, (port,)):
        sockets = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in contents]
        for number, sock in enumerate(sockets):  # all are open and answer before the first has ended
            sock.sendall(b"%03d" % number)
        assert [_receive(sock, 3) for sock in sockets] == [b"%03d" % number for number in range(100)]
        for sock in sockets:
            sock.close()
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda content: ask(port, content), contents))
    assert [len(answer) for answer in answers] == [len(content) for content in contents]
    assert answers == contents


def test_many_connections_one_after_another(kubectl: Kubectl, served: str, echo: int) -> None:
    with forwarded(kubectl, echo) as (_, (port,)):
        assert [ask(port, b"%d" % number) for number in range(150)] == [b"%d" % number for number in range(150)]


def test_several_ports_by_one_client(kubectl: Kubectl, served: str, echo: int) -> None:
    with forwarded(kubectl, echo, SUM) as (_, (local, digest)):
        assert ask(local, b"abc") == b"abc"
        assert ask(digest, b"abc").split()[0].decode() == hashlib.sha256(b"abc").hexdigest()


def test_slow_connection_does_not_hold_up_another(kubectl: Kubectl, served: str, echo: int) -> None:
    with forwarded(kubectl, echo) as (_, (port,)), socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"x")
        assert [ask(port, b"%d" % number) for number in range(10)] == [b"%d" % number for number in range(10)]
        assert idle.recv(1) == b"x"


def test_port_where_nothing_listens_is_said(kubectl: Kubectl, served: str) -> None:
    with forwarded(kubectl, FREE) as (process, (port,)):
        with contextlib.suppress(ConnectionResetError):
            assert ask(port, b"hello") == b""
        assert process.stderr is not None
        line = process.stderr.readline()
        assert b"error occurred forwarding" in line
        assert b"nothing listens" in line


def test_pod_that_stops_ends_its_connections(kubectl: Kubectl, served: str, echo: int, daemon: Daemon) -> None:
    with forwarded(kubectl, echo) as (_, (port,)), socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        daemon.stop_pod(served)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""


def test_killed_client_leaves_no_connection(kubectl: Kubectl, served: str, echo: int, daemon: Daemon) -> None:
    with forwarded(kubectl, echo) as (process, (port,)), contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(20)]
        for sock in sockets:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        process.send_signal(signal.SIGKILL)
    # the fixture of all tests looks for what the daemon still holds


def test_pod_in_the_hosts_network_is_reached(kubectl: Kubectl, server: ApiServer, daemon: Daemon) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.network = 2  # NODE
    server.serve("web", daemon.run_pod(config))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        forwarded(kubectl, listener.getsockname()[1]) as (_, (port,)),
        socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
    ):
        sock.sendall(b"hello")
        accepted, _ = listener.accept()
        with accepted:
            assert _receive(accepted, 5) == b"hello"


def _receive(sock: socket.socket, count: int) -> bytes:
    seen = b""
    while len(seen) < count and (chunk := sock.recv(count - len(seen))):
        seen += chunk
    return seen
