"""StartContainer, as a job: a request that is cut leaves no container that is half started."""

import msgspec

from criollo.aio.cleanup import cleanup
from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.containers.watch import START_ERROR, has_tuned_cpus, untuned, watched
from criollo.errors import CriolloError
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId
from criollo.model.moves import may_become
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def start_container(containers: Containers, container_id: str) -> None:
    """Let a created container run; a repeated request joins the start in progress.

    Raises:
        WrongState: it is not in CREATED.
        ToolFailed, TimedOut: the runtime could not; the container is EXITED with reason StartError and code 128.
    Source: CRI v1, StartContainer.
    """
    found = find_container(containers, container_id).id
    await containers.starts.join(found, lambda job: _start(containers, found))


async def _start(containers: Containers, container_id: ContainerId) -> None:
    async with containers.locks.hold(container_id):
        container = find_container(containers, container_id)
        may_become("container", container.id, container.state, ContainerState.RUNNING)
        runtime = containers.handlers.get(container.handler)
        # The row comes first: a short-lived process may end before `start` returns, and its exit must find RUNNING.
        running = msgspec.structs.replace(container, state=ContainerState.RUNNING, started_ns=containers.clock())
        containers.state.containers.put(running)
        try:
            if container.tuning is not None:
                from criollo.containers.tuning import tune  # few containers have CPUs of their own

                await tune(containers, container)
            await runtime.start(container.id, has_poststart=container.has_poststart)
        except BaseException as error:
            await cleanup(_give_up(containers, container, error), what=f"start of container {container.id}")
            raise
    log.info("container started", container=container.id, pid=container.pid)
    if containers.apparmor is not None or container.process_label:
        from criollo.containers.confirm import confirm  # only where there is something to confirm

        containers.tasks.start(confirm(containers, container), name=f"confirm confinement of {container.id}")


async def _give_up(containers: Containers, container: Container, error: BaseException) -> None:
    """It was not started: say so in the status, and leave nothing of it running."""
    current = containers.state.containers.get(container.id)
    if current is not None and current.state is ContainerState.RUNNING:
        cause = str(error) if isinstance(error, CriolloError) else "the start was cut short; make a new container"
        containers.state.containers.keep(
            msgspec.structs.replace(
                current,
                state=ContainerState.EXITED,
                reason=START_ERROR,
                message=cause,
                exit_code=128,
                started_ns=0,
                finished_ns=containers.clock(),
            )
        )
    try:
        await containers.runtime_of(container.handler).kill_all(watched(containers, container))
    finally:  # the row says EXITED before its exit is seen: nobody else puts them back
        if has_tuned_cpus(containers, container):
            await untuned(containers, container)
