"""StartContainer."""

import msgspec

from criollo.aio.cleanup import cleanup
from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.containers.watch import START_ERROR, watched
from criollo.errors import CriolloError, WrongState
from criollo.model.container import Container, ContainerState
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def start_container(containers: Containers, container_id: str) -> None:
    """Let a created container run.

    Raises:
        WrongState: it is not in CREATED.
        ToolFailed, TimedOut: the runtime could not; the container is EXITED with reason StartError and code 128.
    Source: CRI v1, StartContainer.
    """
    container = find_container(containers, container_id)
    async with containers.locks.hold(container.id):
        container = find_container(containers, container.id)
        if container.state is not ContainerState.CREATED:
            raise WrongState("container", container.id, str(container.state), "CREATED")
        # The row comes first: a short-lived process may end before `start` returns, and its exit must find RUNNING.
        running = msgspec.structs.replace(container, state=ContainerState.RUNNING, started_ns=containers.clock())
        containers.state.containers.put(running)
        try:
            await containers.handlers.get(container.handler).start(container.id)
        except CriolloError as error:
            await cleanup(_give_up(containers, container, error), what=f"start of container {container.id}")
            raise
    log.info("container started", container=container.id, pid=container.pid)


async def _give_up(containers: Containers, container: Container, error: CriolloError) -> None:
    """The runtime could not start it: say so in the status, and leave nothing of it running."""
    current = containers.state.containers.get(container.id)
    if current is not None and current.state is ContainerState.RUNNING:
        containers.state.containers.put(
            msgspec.structs.replace(
                current,
                state=ContainerState.EXITED,
                reason=START_ERROR,
                message=str(error),
                exit_code=128,
                started_ns=0,
                finished_ns=containers.clock(),
            )
        )
    await containers.handlers.get(container.handler).kill_all(watched(containers, container))
