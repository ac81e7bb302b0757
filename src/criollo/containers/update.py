"""UpdateContainerResources."""

import msgspec

from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.model.container import ContainerState
from criollo.model.moves import may_become
from criollo.model.pod import Resources
from criollo.specgen.resources import resources_update
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def update_resources(containers: Containers, container_id: str, resources: Resources) -> None:
    """Change the limits of a created or running container; what is not given stays.

    Raises:
        Invalid: a value the kernel or the handler's minimum forbids; the message names the field.
        WrongState: the container has ended.
        ToolFailed: the runtime could not, for example because the limit is below what is in use.
    Source: CRI v1, UpdateContainerResources.
    """
    container = find_container(containers, container_id)
    async with containers.locks.hold(container.id):
        container = find_container(containers, container.id)
        may_become("container", container.id, container.state, ContainerState.EXITED)  # it lives, as long as it can exit
        runtime = containers.handlers.get(container.handler)
        merged = merge(container.resources, resources)
        defaults = containers.defaults_of(container.handler)
        document = resources_update(merged, host=containers.host, min_memory_bytes=defaults.min_memory_bytes)
        await runtime.update(container.id, document)
        current = containers.state.container(container.id)  # it may have exited meanwhile
        containers.state.containers.keep(msgspec.structs.replace(current, resources=merged))
    log.info("container resources updated", container=container.id)


def merge(old: Resources, new: Resources) -> Resources:
    """The old values with those of the new ones that were given (not zero, not empty)."""
    given = {name: value for name in Resources.__struct_fields__ if (value := getattr(new, name))}
    if "unified" in given:
        given["unified"] = {**old.unified, **new.unified}
    return msgspec.structs.replace(old, **given)
