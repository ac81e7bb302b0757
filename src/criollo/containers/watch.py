"""A container's end: from the monitor's pidfd to the row, and whoever waits for it."""

import asyncio

import msgspec

from criollo.aio.together import first
from criollo.containers.context import Containers
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId
from criollo.model.moves import is_live
from criollo.monitor.exits import Exit, Watched
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

COMPLETED, ERROR, OOM_KILLED = "Completed", "Error", "OOMKilled"  # reasons that kubelet and people know
START_ERROR = "StartError"


def watch(containers: Containers, container: Container) -> None:
    """Record the container's exit whenever it comes."""
    containers.ended[container.id] = asyncio.Event()
    containers.tasks.start(_watch(containers, container), name=f"watch {container.id}")


async def ended_within(
    containers: Containers, container_id: str, limit_s: float, *, unless: asyncio.Event | None = None
) -> bool:
    """Whether the exit of a container is in its row after at most `limit_s` seconds; one that nobody watches has ended.

    Returns early when `unless` is set.
    """
    ended = containers.ended.get(container_id)
    if ended is None:
        return True
    try:
        async with asyncio.timeout(limit_s):
            if unless is None:
                await ended.wait()
            else:
                await first(ended.wait(), unless.wait())
    except TimeoutError:
        pass
    return ended.is_set()


async def _watch(containers: Containers, container: Container) -> None:
    runtime = containers.runtime_of(container.handler)
    record_exit(containers, container.id, await runtime.wait_exit(watched(containers, container)))


def watched(containers: Containers, container: Container) -> Watched:
    """A container as its monitor's room knows it."""
    return Watched(
        container_id=container.id,
        bundle=containers.places.bundle(container.id),
        pid=container.pid,
        pid_started=container.pid_started,
        monitor_pid=container.monitor_pid,
        monitor_started=container.monitor_started,
        cgroup=cgroup_of(containers, container),
    )


def cgroup_of(containers: Containers, container: Container) -> str:
    """Where the container's cgroup is; empty without a pod."""
    pod = containers.state.pods.get(container.pod_id)
    return containers.runtime_of(container.handler).cgroup(pod.cgroup_parent, container.id) if pod is not None else ""


def record_exit(containers: Containers, container_id: ContainerId, exit_: Exit) -> None:
    """Write an exit into the row, once; later news about the same container is ignored."""
    container = containers.state.containers.get(container_id)
    if container is not None and is_live(container.state):
        reason = container.reason or _reason(exit_)
        containers.state.containers.keep(
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
        if has_tuned_cpus(containers, container):
            containers.tasks.start(untuned(containers, container), name=f"put back the CPUs of {container_id}")
    containers.sessions.end(container_id)
    end_notifier(containers, container_id)
    ended = containers.ended.pop(container_id, None)
    if ended is not None:
        ended.set()


def has_tuned_cpus(containers: Containers, container: Container) -> bool:
    return container.tuning is not None or containers.rules.isolates_cpus


async def untuned(containers: Containers, container: Container) -> None:
    """The node's CPUs as they were before a container; safe to repeat."""
    from criollo.containers import tuning  # few containers have CPUs of their own

    if container.tuning is not None:
        await tuning.untune(containers, container)
    if containers.rules.isolates_cpus:
        await tuning.unbalance_ended(containers, container)


def end_notifier(containers: Containers, container_id: ContainerId) -> None:
    """Stop hearing of a container's refused calls."""
    end = containers.notifiers.pop(container_id, None)
    if end is not None:
        end()


def _reason(exit_: Exit) -> str:
    """A container that ends well after the kernel killed one of its processes was not ended by that: CRI-O says OOMKilled."""
    if exit_.oom_killed and exit_.code != 0:
        return OOM_KILLED
    return COMPLETED if exit_.code == 0 else ERROR
