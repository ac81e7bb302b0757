"""Attach: a client at the streams of a container's own process."""

import asyncio
from typing import Final

from criollo.aio.streams import Streams
from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.errors import Invalid, WrongState
from criollo.model.container import Container, ContainerState
from criollo.model.session import AttachSession
from criollo.monitor import attach as monitor

_ATTACHABLE: Final = frozenset({ContainerState.CREATED, ContainerState.RUNNING})  # before the start: to miss nothing


def check_attach(containers: Containers, session: AttachSession) -> Container:
    """The container, when a client may attach to it as it asks.

    Raises:
        Invalid: no streams, a terminal that the container has not, or a stderr beside one.
        NotFound: no such container.
        WrongState: it has ended, or is being killed.
    Source: CRI v1, AttachRequest.
    """
    container = find_container(containers, session.container_id)
    if container.state not in _ATTACHABLE:
        raise WrongState("container", container.id, str(container.state), "CREATED or RUNNING")
    containers.sessions.check(container.id)
    if not (session.stdin or session.stdout or session.stderr):
        raise Invalid("stdin, stdout, stderr", False, "at least one of them")
    if session.tty and not container.config.tty:
        raise Invalid("tty", True, f"false: container {container.id} has no terminal")
    if session.tty and session.stderr:
        raise Invalid("stderr", True, "false with a terminal, which has one output")
    return container


async def attach(containers: Containers, session: AttachSession, streams: Streams) -> None:
    """Pass on what the container says from now on, and what the client types, until the container has ended, as its row says.

    Where its stdin outlives its clients and is no terminal, the end of the client's stdin ends the attach, too.
    `streams` are left open. Going away does the container no harm, but see `monitor.attach` for stdin_once.

    Raises:
        Invalid, NotFound, WrongState: see `check_attach`; again, because the client took its time to connect.
        TimedOut: the monitor does not answer, or the client takes nothing while the container waits for it.
    """
    container = check_attach(containers, session)
    target = monitor.Target(
        container_id=container.id,
        bundle=containers.places.bundle(container.id),
        tty=container.config.tty,
        stdin=container.config.stdin,
        stdin_once=container.config.stdin_once,
    )
    ending = asyncio.Event()
    with containers.sessions.open(container.id, ending.set):
        has_ended = await monitor.attach(target, streams, ending=ending)
    recorded = containers.ended.get(container.id)
    if has_ended and recorded is not None:
        await recorded.wait()  # a client that asks how it ended, after this, is told
