"""A container's end: from the monitor's pidfd to the row, and whoever waits for it."""

import asyncio

import msgspec

from criollo.containers.context import Containers
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId
from criollo.monitor.exits import Exit, Watched
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

COMPLETED, ERROR, OOM_KILLED = "Completed", "Error", "OOMKilled"  # reasons that kubelet and people know
START_ERROR = "StartError"


def watch(containers: Containers, container: Container) -> None:
    """Record the container's exit whenever it comes."""
    containers.ended[container.id] = asyncio.Event()
    containers.tasks.start(_watch(containers, container), name=f"watch {container.id}")


async def wait_ended(containers: Containers, container_id: str) -> None:
    """Return when the exit of a watched container is in its row; at once when there is nothing to wait for."""
    ended = containers.ended.get(container_id)
    if ended is not None:
        await ended.wait()


async def _watch(containers: Containers, container: Container) -> None:
    runtime = containers.handlers.get(container.handler)
    record_exit(containers, container.id, await runtime.wait_exit(watched(containers, container)))


def watched(containers: Containers, container: Container) -> Watched:
    """A container as its monitor's room knows it."""
    pod = containers.state.pods.get(container.pod_id)
    runtime = containers.handlers.get(container.handler)
    return Watched(
        container_id=container.id,
        bundle=containers.places.bundle(container.id),
        pid=container.pid,
        pid_started=container.pid_started,
        monitor_pid=container.monitor_pid,
        monitor_started=container.monitor_started,
        cgroup=runtime.cgroup(pod.cgroup_parent, container.id) if pod is not None else "",
    )


def record_exit(containers: Containers, container_id: ContainerId, exit_: Exit) -> None:
    """Write an exit into the row, once; later news about the same container is ignored."""
    container = containers.state.containers.get(container_id)
    if container is not None and container.state in (ContainerState.CREATED, ContainerState.RUNNING):
        reason = container.reason or _reason(exit_)
        containers.state.containers.put(
            msgspec.structs.replace(
                container,
                state=ContainerState.EXITED,
                exit_code=exit_.code,
                finished_ns=max(exit_.at_ns, container.started_ns),
                reason=reason,
                message=container.message or exit_.reason,
            )
        )
        log.info("container exited", container=container_id, code=exit_.code, reason=reason)
    ended = containers.ended.pop(container_id, None)
    if ended is not None:
        ended.set()


def _reason(exit_: Exit) -> str:
    if exit_.oom_killed:
        return OOM_KILLED
    return COMPLETED if exit_.code == 0 else ERROR
