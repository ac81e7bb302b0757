"""The one way down for a container: a failed create, RemoveContainer and recovery all come through here.

Idempotent: it finds what exists by the id. What cannot be removed now leaves the row, with the reason, for the sweeper.
"""

import msgspec

from criollo.aio import threads
from criollo.containers import linked_logs
from criollo.containers.context import Containers
from criollo.containers.stop import stop
from criollo.containers.watch import end_notifier, ended_within, watch, watched
from criollo.errors import CriolloError, TimedOut, explain
from criollo.linux import files, procfs
from criollo.linux.namespaces import unpin
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId
from criollo.model.moves import may_become
from criollo.model.pod import NamespaceMode
from criollo.monitor.exits import end_monitor
from criollo.monitor.strays import end_monitor_of
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def remove_container(containers: Containers, container_id: str) -> None:
    """Remove a container, killing it first when it runs; an unknown one is success. Its log stays: it is the kubelet's.

    One that is being removed is waited for; one that could not be removed is tried again.

    Raises:
        Invalid: several containers' ids begin so.
        CriolloError: see `tear_down`.
    Source: CRI v1, RemoveContainer.
    """
    found = containers.state.containers.find_any(container_id, vanishing=True)
    if found is not None:
        await remove(containers, found.id)


async def remove(containers: Containers, container_id: ContainerId) -> None:
    """`remove_container` for an id that is known, visible or not."""
    await containers.removes.join(container_id, lambda job: _remove(containers, container_id))


async def _remove(containers: Containers, container_id: ContainerId) -> None:
    await stop(containers, container_id, grace_s=0)
    await tear_down(containers, container_id)


async def tear_down(containers: Containers, container_id: ContainerId) -> None:
    """Take away everything a container has, and its row last. Safe to repeat and at any state but RUNNING.

    Raises:
        CriolloError: something could not be taken away; the row says what, and the sweeper tries again.
    """
    async with containers.locks.hold(container_id):
        container = containers.state.containers.get(container_id)
        if container is None:
            return
        if container.state is not ContainerState.REMOVING:
            may_become("container", container.id, container.state, ContainerState.REMOVING)
            # `keep`: a full disk must not keep us from making room.
            container = containers.state.containers.keep(msgspec.structs.replace(container, state=ContainerState.REMOVING))
        try:
            await _take_away(containers, container)
            containers.state.containers.delete(container_id)
        except CriolloError as error:
            containers.state.containers.keep(msgspec.structs.replace(container, trouble=str(error)))
            raise
        containers.collector.forget(container_id)
        containers.usages.forget(container_id)
    log.info("container removed", container=container_id)


async def _take_away(containers: Containers, container: Container) -> None:
    pod = containers.state.pods.get(container.pod_id)
    runtime = containers.runtime_of(container.handler)
    if not container.monitor_pid:
        await threads.spawning(end_monitor_of, containers.places.bundle(container.id))
    elif container.id not in containers.ended and procfs.is_alive(container.monitor_pid, container.monitor_started):
        watch(containers, container)  # of a removal that a crash cut
    await runtime.delete(container.id, cgroup_parent=pod.cgroup_parent if pod is not None else "", force=True)
    await _wait_monitor(containers, container)
    if container.notifier:
        end_notifier(containers, container.id)
        await threads.files(containers.places.notifier(container.id).unlink, missing_ok=True)
    if pod is not None and linked_logs.KEY in pod.files:
        await threads.files(linked_logs.unlink, pod.files, pod.logs, container.id)
    if container.config.security.namespaces.pid is NamespaceMode.TARGET:
        with explain(f"let go of the PID namespace that container {container.id} joined"):
            await threads.mounts(unpin, containers.places.target_pids(container.id))
    await containers.roots.remove(container.id)
    await threads.files(_remove_files, containers, container.id)


def _remove_files(containers: Containers, container_id: ContainerId) -> None:
    """The exit file once more: a monitor that was slow has written it after `delete`."""
    with explain(f"remove the run state of container {container_id}"):
        (containers.exits_dir / container_id).unlink(missing_ok=True)
        files.remove_tree(containers.places.bundle(container_id))


async def _wait_monitor(containers: Containers, container: Container) -> None:
    """The monitor lets go of bundle and log when its container has gone; one that does not is killed."""
    if await ended_within(containers, container.id, containers.monitor_s):
        return
    log.warning("monitor does not end after its container; killing it", container=container.id)
    end_monitor(watched(containers, container))
    if not await ended_within(containers, container.id, containers.monitor_s):
        raise TimedOut(
            f"cannot remove container {container.id}: process {container.monitor_pid}, its monitor, cannot be killed"
        )
