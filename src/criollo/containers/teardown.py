"""The one way down for a container: a failed create, RemoveContainer and recovery all come through here.

Idempotent: it finds what exists by the id. What cannot be removed now leaves the row, with the reason, for the sweeper.
"""

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.status import is_visible
from criollo.containers.stop import stop
from criollo.containers.watch import wait_ended
from criollo.errors import CriolloError, NotFound
from criollo.linux import files
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def remove_container(containers: Containers, container_id: str) -> None:
    """Remove a container, killing it first when it runs; an unknown one is success. Its log stays: it is the kubelet's.

    Source: CRI v1, RemoveContainer.
    """
    found = [each for each in containers.state.containers.by_prefix(container_id) if is_visible(containers, each)]
    if len(found) == 1:
        await remove(containers, found[0].id)


async def remove(containers: Containers, container_id: ContainerId) -> None:
    """`remove_container` for an id that is known, visible or not."""
    await stop(containers, container_id, grace_s=0)
    await tear_down(containers, container_id)


async def tear_down(containers: Containers, container_id: ContainerId) -> None:
    """Take away everything a container has, and its row last. Safe to repeat and at any state.

    Raises:
        CriolloError: something could not be taken away; the row says what, and the sweeper tries again.
    """
    async with containers.locks.hold(container_id):
        container = containers.state.containers.get(container_id)
        if container is None:
            return
        if container.state is not ContainerState.REMOVING:
            container = containers.state.containers.put(msgspec.structs.replace(container, state=ContainerState.REMOVING))
        try:
            await _take_away(containers, container)
        except CriolloError as error:
            containers.state.containers.put(msgspec.structs.replace(container, trouble=str(error)))
            raise
        containers.state.containers.delete(container_id)
        containers.collector.forget(container_id)
    log.info("container removed", container=container_id)


async def _take_away(containers: Containers, container: Container) -> None:
    try:
        runtime = containers.handlers.get(container.handler)
    except NotFound:  # the handler has left the configuration since: any OCI runtime's state is files and processes
        runtime = containers.handlers.get("")
    pod = containers.state.pods.get(container.pod_id)
    await runtime.delete(container.id, cgroup_parent=pod.cgroup_parent if pod is not None else "", force=True)
    await wait_ended(containers, container.id)
    await containers.roots.remove(container.id)
    await threads.files(files.remove_tree, containers.places.bundle(container.id))
