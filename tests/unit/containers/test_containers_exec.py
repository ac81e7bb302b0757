"""Exec and attach: who may, and what a session is told when its container goes away."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from support.waiting import run

from criollo.aio import threads
from criollo.aio.streams import Streams
from criollo.containers import exec as verb
from criollo.containers.attach import attach, check_attach
from criollo.containers.exec import KILLED, check_exec, exec_stream, exec_sync
from criollo.containers.processes import FirstProcesses
from criollo.containers.sessions import Sessions
from criollo.containers.shape import Rules
from criollo.errors import Invalid, NotFound, WrongState
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import AttachSession, ExecSession
from criollo.oci import runtime_spec
from criollo.runtimes.base import ExecRequest, ExecResult

ID = ContainerId("c" * 64)
GONE = [ContainerState.EXITED, ContainerState.REMOVING]


class FakeRuntime:
    """Keeps the request; a command that is to hang ends only when it is cancelled."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs, self.was_ended = hangs, False
        self.began = asyncio.Event()
        self.requests: list[ExecRequest] = []
        self.expected: list[ExecRequest] = []

    async def exec_stream(self, request: ExecRequest, streams: Streams) -> int:
        await self._run(request)
        return 3

    async def exec_sync(self, request: ExecRequest) -> ExecResult:
        await self._run(request)
        return ExecResult(b"out", b"", 0)

    async def expect_exec(self, request: ExecRequest) -> None:
        self.expected.append(request)

    async def _run(self, request: ExecRequest) -> None:
        self.requests.append(request)
        self.began.set()
        try:
            if self.hangs:
                await asyncio.get_running_loop().create_future()
        finally:
            self.was_ended = True


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    yield
    threads.close()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """The context of one container."""
    process = runtime_spec.Process(user=runtime_spec.User(uid=7, gid=7), args=("sleep",), cwd="/", env=("TERM=dumb", "A=1"))
    spec = runtime_spec.Spec(oci_version="1.0.2", process=process)
    (tmp_path / "config.json").write_bytes(runtime_spec.encode(spec))

    def made(
        state: ContainerState = ContainerState.RUNNING, *, tty: bool = False, stdin: bool = False, hangs: bool = False
    ) -> Any:
        config = ContainerConfig(name="c", image=ImageSpec(image="i"), tty=tty, stdin=stdin)
        row = Container(id=ID, pod_id=PodId("p"), name="c", config=config, handler="", state=state, created_ns=1)

        def find(container_id: str) -> Container:
            if container_id != ID or state is ContainerState.REMOVING:
                raise NotFound("container", container_id)
            return row

        runtime = FakeRuntime(hangs=hangs)
        return SimpleNamespace(
            state=SimpleNamespace(containers=SimpleNamespace(find=find)),
            sessions=Sessions(),
            ended={},
            first_processes=FirstProcesses(),
            places=SimpleNamespace(bundle=lambda container_id: tmp_path),
            handlers=SimpleNamespace(get=lambda name: runtime),
            rules=Rules(),
            tasks=SimpleNamespace(start=lambda work, name: asyncio.run_coroutine_threadsafe(work, asyncio.get_running_loop())),
            runtime=runtime,
        )

    return made


def session(**fields: Any) -> ExecSession:
    return ExecSession(**{"container_id": ID, "argv": ("ls",), "stdout": True} | fields)


def attachment(**fields: Any) -> AttachSession:
    return AttachSession(**{"container_id": ID, "stdout": True} | fields)


def test_a_command_runs_as_the_containers_own_process(make: Callable[..., Any]) -> None:
    containers = make()
    assert asyncio.run(exec_stream(containers, session(tty=True, stdin=True), Streams())) == 3
    request = containers.runtime.requests[0]
    process = msgspec.json.decode(request.process)
    assert (process["user"]["uid"], process["args"], process["terminal"]) == (7, ["ls"], True)
    assert process["env"] == ["A=1", "TERM=xterm"]
    assert (request.tty, request.command, request.timeout_s) == (True, ("ls",), 0)


def test_exec_sync_has_no_terminal(make: Callable[..., Any]) -> None:
    containers = make(tty=True)
    assert asyncio.run(exec_sync(containers, ID, ("ls",), timeout_s=2)).stdout == b"out"
    request = containers.runtime.requests[0]
    assert "terminal" not in msgspec.json.decode(request.process)
    assert (request.tty, request.timeout_s) == (False, 2)


@pytest.mark.parametrize("fields", [{"argv": ()}, {"stdout": False}, {"tty": True, "stderr": True}])
def test_an_exec_that_makes_no_sense_is_refused(make: Callable[..., Any], fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        check_exec(make(), session(**fields))


def test_exec_needs_a_running_container(make: Callable[..., Any]) -> None:
    assert check_exec(make(), session()).id == ID
    for state in (ContainerState.CREATED, *GONE[:1]):
        with pytest.raises(WrongState):
            check_exec(make(state), session())
    with pytest.raises(NotFound):
        check_exec(make(ContainerState.REMOVING), session())
    with pytest.raises(NotFound):
        check_exec(make(), session(container_id="other"))


def test_no_session_begins_in_a_container_that_is_being_killed(make: Callable[..., Any]) -> None:
    containers = make()
    with containers.sessions.killing(ID):
        with pytest.raises(WrongState, match="being killed"):
            check_exec(containers, session())
        with pytest.raises(WrongState, match="being killed"):
            asyncio.run(exec_sync(containers, ID, ("ls",), timeout_s=0))
        with pytest.raises(WrongState, match="being killed"):
            check_attach(containers, attachment())


def test_a_command_that_outlives_its_container_is_ended(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "END_GRACE_S", 0.01)
    containers = make(hangs=True)

    async def scenario() -> int:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(exec_stream(containers, session(), Streams()))
            await containers.runtime.began.wait()
            containers.sessions.end(ID)
            containers.sessions.end(ID)
        return running.result()

    assert asyncio.run(scenario()) == KILLED == 137
    assert containers.runtime.was_ended


def test_an_exec_sync_that_outlives_its_container_is_an_error(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "END_GRACE_S", 0.01)
    containers = make(hangs=True)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(exec_sync(containers, ID, ("ls",), timeout_s=0))
            await containers.runtime.began.wait()
            containers.sessions.end(ID)

    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(scenario())
    assert failed.group_contains(WrongState, match="is killed")


@pytest.mark.parametrize("fields", [{"stdout": False}, {"tty": True}])
def test_an_attach_that_makes_no_sense_is_refused(make: Callable[..., Any], fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        check_attach(make(), attachment(**fields))


def test_a_terminal_has_no_stderr_of_its_own(make: Callable[..., Any]) -> None:
    assert check_attach(make(tty=True), attachment(tty=True)).id == ID
    with pytest.raises(Invalid, match="stderr"):
        check_attach(make(tty=True), attachment(tty=True, stderr=True))


def test_attach_needs_a_container_that_has_not_ended(make: Callable[..., Any]) -> None:
    for state in (ContainerState.CREATED, ContainerState.RUNNING):
        assert check_attach(make(state), attachment()).state is state
    for state in GONE:
        with pytest.raises((WrongState, NotFound)):
            check_attach(make(state), attachment())


class Monitor:
    """Conmon's attach socket, with one client."""

    def __init__(self, bundle: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(bundle / "attach"))
        self._listener.listen()

    async def end(self) -> None:
        """Say the last words and end; returns when the client has gone."""
        loop = asyncio.get_running_loop()
        client, _ = await loop.sock_accept(self._listener)
        with self._listener, client:
            await loop.sock_sendall(client, b"\x02last words")
            client.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(client, 1):
                pass


class Ended:
    """A client's end of stdin, at once."""

    async def read(self) -> bytes:
        return b""

    def drop(self) -> None:
        pass


def test_an_attach_to_a_container_that_ends_is_over_when_its_row_says_so(make: Callable[..., Any], tmp_path: Path) -> None:
    told: list[str] = []
    containers = make()

    async def attaching() -> None:
        await attach(containers, attachment(), Streams())
        told.append("attach")

    async def scenario() -> None:
        monitor, recorded = Monitor(tmp_path), asyncio.Event()
        containers.ended[ID] = recorded
        async with asyncio.TaskGroup() as group:
            group.create_task(attaching())
            await monitor.end()
            told.append("row")
            recorded.set()

    run(scenario())
    assert told == ["row", "attach"]


def test_an_attach_that_its_client_ends_waits_for_no_row(make: Callable[..., Any], tmp_path: Path) -> None:
    containers = make(stdin=True)

    async def scenario() -> None:
        containers.ended[ID] = asyncio.Event()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(tmp_path / "attach"))
            listener.listen()
            await attach(containers, attachment(stdin=True), Streams(stdin=Ended()))

    run(scenario())
