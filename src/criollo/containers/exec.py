"""Exec and ExecSync: run a command in a container, between a client's streams or for its output alone."""

import asyncio
import signal
from pathlib import Path
from typing import Final

from criollo.aio.streams import Streams
from criollo.containers.context import Containers
from criollo.containers.status import MAX_SPEC_BYTES, find_container
from criollo.errors import Invalid, WrongState
from criollo.linux.cgroup import of_process
from criollo.model.container import Container, ContainerState
from criollo.model.session import ExecSession
from criollo.oci import runtime_spec
from criollo.runtimes.base import ExecRequest, ExecResult
from criollo.specgen.process import exec_process

KILLED: Final = 128 + signal.SIGKILL
END_GRACE_S: float = 2  # most commands die with their container; their last words are still passed on


async def exec_sync(containers: Containers, container_id: str, argv: tuple[str, ...], *, timeout_s: float) -> ExecResult:
    """Run `argv` with the user, environment and limits of the container's own process; no limit when `timeout_s` is 0.

    Raises:
        WrongState: the container does not run, or was killed meanwhile.
        TimedOut: the command was killed with all it had started.
        ToolFailed: the runtime could not start it.
    Source: CRI v1, ExecSync.
    """
    container = _executable(containers, container_id, argv)
    request = await _request(containers, container, argv, timeout_s=timeout_s)
    runtime = containers.handlers.get(container.handler)
    try:
        async with asyncio.timeout(None) as limit:
            with containers.sessions.open(container.id, lambda: _shorten(limit)):
                result = await runtime.exec_sync(request)
    except TimeoutError:
        raise WrongState("container", container.id, "killed", "one that runs until the command has ended") from None
    containers.tasks.start(runtime.expect_exec(request), name=f"expect an exec in container {container.id}")
    return result


def check_exec(containers: Containers, session: ExecSession) -> Container:
    """The container, when a client may run this in it.

    Raises:
        Invalid: no command, no streams, or a stderr beside a terminal.
        NotFound: no such container.
        WrongState: it does not run, or is being killed.
    Source: CRI v1, ExecRequest.
    """
    container = _executable(containers, session.container_id, session.argv)
    if not (session.stdin or session.stdout or session.stderr):
        raise Invalid("stdin, stdout, stderr", False, "at least one of them")
    if session.tty and session.stderr:
        raise Invalid("stderr", True, "false with a terminal, which has one output")
    return container


async def exec_stream(containers: Containers, session: ExecSession, streams: Streams) -> int:
    """Run a session's command between the client's streams; its exit code, 137 when the container was killed meanwhile.

    When cancelled, the command is killed with all it has started. `streams` are left open.

    Raises:
        Invalid, NotFound, WrongState: see `check_exec`; again, because the client took its time to connect.
        ToolFailed: the runtime could not start it; a command that is not there is exit code 127 or 126 instead.
    """
    container = check_exec(containers, session)
    request = await _request(containers, container, session.argv, tty=session.tty)
    try:
        async with asyncio.timeout(None) as limit:
            with containers.sessions.open(container.id, lambda: _shorten(limit)):
                return await containers.handlers.get(container.handler).exec_stream(request, streams)
    except TimeoutError:
        return KILLED


def _executable(containers: Containers, container_id: str, argv: tuple[str, ...]) -> Container:
    if not argv:
        raise Invalid("cmd", argv, "a command")
    container = find_container(containers, container_id)
    if container.state is not ContainerState.RUNNING:
        raise WrongState("container", container.id, str(container.state), "RUNNING")
    containers.sessions.check(container.id)
    return container


async def _request(
    containers: Containers, container: Container, argv: tuple[str, ...], *, tty: bool = False, timeout_s: float = 0
) -> ExecRequest:
    bundle = containers.places.bundle(container.id)
    first = await containers.first_processes.of(container.id, bundle / "config.json", limit_bytes=MAX_SPEC_BYTES)
    process = runtime_spec.encode(exec_process(first, argv, terminal=tty))
    return ExecRequest(
        container_id=container.id,
        bundle=bundle,
        process=process,
        command=argv,
        tty=tty,
        timeout_s=timeout_s,
        joins=_cgroups(containers, container),
        pid=container.pid,
        pid_started=container.pid_started,
    )


def _cgroups(containers: Containers, container: Container) -> tuple[Path, ...]:
    """Where the runtime's process is counted: with the container, where its handler says so, else with us."""
    handlers = containers.rules.exec_in_container
    if not handlers or (container.handler or containers.handlers.default) not in handlers:
        return ()
    found = of_process(container.pid)
    roots = (*containers.hierarchies.controllers.items(), ("", containers.hierarchies.unified))
    places = (root / found[name].lstrip("/") for name, root in roots if root is not None and found.get(name, "/") != "/")
    return tuple(dict.fromkeys(place / "cgroup.procs" for place in places))


def _shorten(limit: asyncio.Timeout) -> None:
    if limit.when() is None and not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time() + END_GRACE_S)
