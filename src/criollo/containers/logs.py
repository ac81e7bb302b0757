"""ReopenContainerLog: kubelet has rotated the file, the monitor must write to a new one."""

from pathlib import Path

from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.errors import WrongState
from criollo.model.container import ContainerState
from criollo.monitor import console


async def reopen_log(containers: Containers, container_id: str) -> None:
    """Have the monitor close the log file and open it again by name. Does not wait for a stop in progress.

    Raises:
        WrongState: the container does not run.
    Source: CRI v1, ReopenContainerLog.
    """
    container = find_container(containers, container_id)
    if container.state is not ContainerState.RUNNING:
        raise WrongState("container", container.id, str(container.state), "RUNNING")
    if container.log_path:
        await console.reopen_log(container.id, containers.places.bundle(container.id), log_path=Path(container.log_path))
