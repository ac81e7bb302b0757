"""Port-forward into a real network namespace: who listens is reached, and a stop frees the namespace."""

import asyncio
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from support import leaks
from support.waiting import cancelled_within, run

from criollo.aio import threads
from criollo.errors import Denied, Invalid, NotFound, Unavailable, WrongState
from criollo.linux import namespaces
from criollo.linux.namespaces import NamespaceKind
from criollo.model.ids import PodId
from criollo.model.pod import NamespaceMode, Namespaces, Pod, PodConfig, PodSecurity, PodState
from criollo.model.session import ForwardSession
from criollo.pods import forward
from criollo.pods.forward import check_forward, dial
from criollo.pods.sockets import Forwards

pytestmark = pytest.mark.node
POD = PodId("f" * 64)
SIOCGSKNS = 0x894C  # linux/sockios.h


class Rows:
    """A pod's row."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod

    def find(self, pod_id: str) -> Pod:
        if pod_id != self.pod.id:
            raise NotFound("pod sandbox", pod_id)
        return self.pod

    def get(self, pod_id: str) -> Pod | None:
        return self.pod if pod_id == self.pod.id else None


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    """A pinned network namespace with its loopback up; it is gone afterwards."""
    path = tmp_path / "netns" / "pod"
    path.parent.mkdir()
    before = leaks.descriptors()
    asyncio.run(threads.fresh(namespaces.pin, [NamespaceKind.NET], {NamespaceKind.NET: path}))
    yield path
    namespaces.unpin(path)
    assert leaks.new_descriptors(before) == []


def pods_of(netns: Path | None, *, state: PodState = PodState.READY) -> Any:
    """What `dial` knows of a pod; in the host's network without a namespace."""
    mode = NamespaceMode.POD if netns else NamespaceMode.NODE
    security = PodSecurity(namespaces=Namespaces(network=mode))
    pod = Pod(
        id=POD,
        name="pod",
        config=PodConfig(name="pod", uid="u", namespace="n", security=security),
        handler="",
        state=state,
        created_ns=1,
        namespaces={"net": str(netns)} if netns else {},
    )
    return SimpleNamespace(state=SimpleNamespace(pods=Rows(pod)), forwards=Forwards())


def listen(netns: Path | None, address: str) -> socket.socket:
    """A listener inside, on a port of the kernel's choice."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.bind((address, 0))
        made.listen()
        return made

    return asyncio.run(threads.fresh(namespaces.run_in, netns, make)) if netns else make()


def session(*ports: int, pod: PodId = POD) -> ForwardSession:
    return ForwardSession(pod_id=pod, ports=ports)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_listener_inside_is_reached(netns: Path, address: str) -> None:
    with listen(netns, address) as listener:
        port = listener.getsockname()[1]
        with asyncio.run(dial(pods_of(netns), session(port), port)) as connection:
            assert not connection.getblocking()
            assert not connection.get_inheritable()
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"hello")
                connection.setblocking(True)
                assert connection.recv(10) == b"hello"


def test_a_listener_of_the_host_is_not_reached_from_a_pods_own_network(netns: Path) -> None:
    with listen(None, "127.0.0.1") as listener, pytest.raises(Unavailable, match="nothing listens on it"):
        asyncio.run(dial(pods_of(netns), session(), listener.getsockname()[1]))


def test_a_pod_in_the_hosts_network_is_reached_there() -> None:
    with listen(None, "127.0.0.1") as listener:
        port = listener.getsockname()[1]
        asyncio.run(dial(pods_of(None), session(port), port)).close()


def test_a_port_that_the_session_is_not_for_is_denied(netns: Path) -> None:
    with pytest.raises(Denied, match="the session is for 80, 443"):
        asyncio.run(dial(pods_of(netns), session(80, 443), 22))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(netns: Path, port: int) -> None:
    with pytest.raises(Invalid, match="port"):
        asyncio.run(dial(pods_of(netns), session(), port))
    with pytest.raises(Invalid, match="port"):
        check_forward(pods_of(netns), session(80, port))


def test_an_unknown_or_stopped_pod_is_refused(netns: Path) -> None:
    with pytest.raises(NotFound):
        check_forward(pods_of(netns), session(pod=PodId("e" * 64)))
    for state in (PodState.NOTREADY, PodState.REMOVING):
        with pytest.raises((WrongState, NotFound)):
            check_forward(pods_of(netns, state=state), session())


def test_a_stop_ends_connections_and_waits_for_their_users(netns: Path) -> None:
    async def scenario(port: int) -> bytes:
        pods = pods_of(netns)
        connection = await dial(pods, session(), port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pods.forwards.end(POD))
            with connection:
                return await asyncio.get_running_loop().sock_recv(connection, 10)

    with listen(netns, "127.0.0.1") as listener:
        assert asyncio.run(scenario(listener.getsockname()[1])) == b""


def test_a_connection_that_nobody_closes_keeps_no_namespace(netns: Path) -> None:
    async def scenario(port: int) -> None:
        pods = pods_of(netns)
        connection = await dial(pods, session(), port)
        assert namespace_of(connection) == netns.stat().st_ino
        await pods.forwards.end(POD)
        assert namespace_of(connection) == os.stat("/proc/self/ns/net").st_ino
        with connection:
            assert connection.recv(10) == b""
            with pytest.raises(BrokenPipeError):
                connection.send(b"x")

    with listen(netns, "127.0.0.1") as listener:
        asyncio.run(scenario(listener.getsockname()[1]))


def namespace_of(connection: socket.socket) -> int:
    """The inode of the network namespace that a socket keeps alive."""
    fd = fcntl.ioctl(connection, SIOCGSKNS)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def test_a_pod_that_goes_while_its_socket_is_made_gets_no_connection(netns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(port: int) -> Any:
        pods = pods_of(netns)
        make = forward._socket_in

        async def made(pod: Pod, family: socket.AddressFamily) -> socket.socket:
            found = await make(pod, family)
            pods.state.pods = Rows(msgspec.structs.replace(pod, id=PodId("e" * 64)))  # the pod's row is no more
            return found

        monkeypatch.setattr(forward, "_socket_in", made)
        with pytest.raises(NotFound):
            await dial(pods, session(port), port)
        return pods

    with listen(netns, "127.0.0.1") as listener:
        pods = asyncio.run(main(listener.getsockname()[1]))
    assert not pods.forwards._sockets


def test_a_caller_who_is_cancelled_while_his_socket_is_made_leaves_none(netns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    async def main() -> None:
        monkeypatch.setattr(forward.socket, "socket", Noted)
        await cancelled_within(monkeypatch, namespaces, "run_in", dial(pods_of(netns), session(80), 80))

    run(main())
    assert [each.fileno() for each in made] == [-1]
