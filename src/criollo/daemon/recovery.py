"""The database against reality, at start: what lives is adopted, what does not is torn down, what nobody owns is swept.

Each object alone, so that one broken row cannot stop the daemon; what cannot be torn down now stays a row with its
reason, and the sweeper retries it. Nobody waits long for one whose runtime hangs: it goes on beside the daemon's work.
"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from criollo.aio import threads
from criollo.aio.together import together
from criollo.containers import teardown as container_teardown
from criollo.containers.confine import listen
from criollo.containers.context import Containers
from criollo.containers.watch import record_exit, watch, watched
from criollo.daemon.leftovers import sweep_leftovers, take_away
from criollo.daemon.patience import awhile
from criollo.errors import CriolloError
from criollo.linux import procfs
from criollo.linux.namespaces import is_pinned
from criollo.model.container import Container, ContainerState
from criollo.model.moves import can_become
from criollo.model.pod import Pod, PodState
from criollo.monitor.exits import KILLED, Exit
from criollo.monitor.strays import kill_strays
from criollo.pods import cgroups, connection, files, infra
from criollo.pods import teardown as pod_teardown
from criollo.pods.context import Pods
from criollo.state.records import BrokenRow, ContainerRows, PodRows
from criollo.telemetry.log import get_logger
from criollo.wire.runtime import Status

log = get_logger(__name__)

BOOT = "boot_id"
REBOOTED = "the node was rebooted"
STATE_LIMIT_S = 5
CHECK_LIMIT_S = 10

_CHECKS = 4  # at once: nothing waits for them


async def recover(pods: Pods) -> None:
    """Bring rows and reality together; afterwards lists and statuses are true."""
    state, boot = pods.state, procfs.boot_id()
    rebooted = state.fact(BOOT) not in (None, boot)
    if rebooted:
        log.info("the node was rebooted: all pods of the last boot are torn down", pods=len(state.pods))
    await _end_strays(pods)
    await together(awhile(pods.tasks, _drop_broken_container(pods, row), row.id) for row in state.containers.broken)
    await together(
        awhile(pods.tasks, _recover_container(pods.containers, each, rebooted=rebooted), each.id) for each in state.containers
    )
    await together(awhile(pods.tasks, _drop_broken_pod(pods, row), row.id) for row in state.pods.broken)
    await together(awhile(pods.tasks, _recover_pod(pods, each, rebooted=rebooted), each.id) for each in state.pods)
    if state.fact(BOOT) != boot:  # last, so that a crash on the way here does not hide the reboot
        state.set_fact(BOOT, boot)
    await sweep_leftovers(pods)
    log.info("recovered", pods=len(state.pods), containers=len(state.containers))


async def check_networks(pods: Pods) -> None:
    """Whether the networks of pods that an earlier daemon made are as it left them (decision 14), a few at a time."""
    waiting = iter([pod.id for pod in pods.state.pods if pod.state is PodState.READY and not pod.host_network])

    async def check() -> None:
        for pod_id in waiting:
            await connection.check(pods, pod_id, limit_s=CHECK_LIMIT_S)

    await together(check() for _ in range(_CHECKS))


async def _end_strays(pods: Pods) -> None:
    """Monitors of containers that were being made when the daemon was killed: their rows have no pid yet. Plugins that
    attached pods then, or detached some.
    """
    monitors = {each.monitor_pid for each in pods.state.containers}
    monitors |= {each.infra.monitor_pid for each in pods.state.pods if each.infra is not None}
    for container_id in await threads.spawning(kill_strays, pods.containers.places.bundles, monitors):
        log.info("ended a monitor without a container", container=container_id)
    if half := {each.id for each in pods.state.pods if each.state in (PodState.CREATING, PodState.REMOVING)}:
        await pods.network.end_strays(half)


async def _drop_broken_container(pods: Pods, row: BrokenRow) -> None:
    """A row nobody can read any more: what hangs on its id goes, then the row. Its monitor ended as a stray."""
    pod = pods.state.pods.get(row.pod_id)
    await _quietly(take_away(pods.containers, row.id, cgroup_parent=pod.cgroup_parent if pod else ""), row.id)
    await _quietly(_forget(pods.state.containers, row), row.id)


async def _drop_broken_pod(pods: Pods, row: BrokenRow) -> None:
    """As of a container; those of such a pod have been adopted meanwhile, and are removed as any other."""
    for container in pods.state.containers.of_pod(row.id):
        await _quietly(container_teardown.remove(pods.containers, container.id), container.id)
    await _quietly(take_away(pods.containers, row.id), row.id)
    await _quietly(cgroups.remove_of(pods, row.id), row.id)
    await _quietly(files.remove_logs(pods.log_dir, row.id), row.id)
    if not pods.state.containers.of_pod(row.id):
        await _quietly(_forget(pods.state.pods, row), row.id)


async def _forget(rows: PodRows | ContainerRows, row: BrokenRow) -> None:
    """Without what hung on it; a row that stays, on a full disk or because another one needs it, is met at the next start."""
    rows.delete(row.id)


async def _recover_container(containers: Containers, container: Container, *, rebooted: bool) -> None:
    if rebooted:
        record_exit(containers, container.id, Exit(KILLED, containers.clock(), oom_killed=False, reason=REBOOTED))
    if rebooted or container.state in (ContainerState.CREATING, ContainerState.REMOVING):
        await _quietly(container_teardown.tear_down(containers, container.id), container.id)
    elif container.state is not ContainerState.EXITED:
        await _quietly(_adopt(containers, container), container.id)


async def _adopt(containers: Containers, container: Container) -> None:
    """A container that ran when the daemon ended: still watched by its monitor, or ended meanwhile."""
    if not procfs.is_alive(container.monitor_pid, container.monitor_started):
        runtime = containers.runtime_of(container.handler)
        record_exit(containers, container.id, await runtime.wait_exit(watched(containers, container)))
        return
    watch(containers, container)
    if container.notifier:
        await listen(containers, container)
    log.info("container adopted", container=container.id, pid=container.pid)
    if container.state is ContainerState.RUNNING:
        await _correct_start(containers, container)
    if container.updating is not None:
        from criollo.containers.update import update_resources  # as for clients: few containers are resized

        await update_resources(containers, container.id, container.updating)


async def _correct_start(containers: Containers, container: Container) -> None:
    """A daemon killed in StartContainer has written RUNNING before the runtime started anything."""
    try:
        async with asyncio.timeout(STATE_LIMIT_S):  # everybody waits for recovery
            seen = await containers.handlers.get(container.handler).state(container.id)
    except TimeoutError:
        log.warning("runtime does not say whether a container was started; taking its row's word", container=container.id)
        return
    current = containers.state.containers.get(container.id)  # a client may have removed it, where this has taken long
    if current is None or current.state is not ContainerState.RUNNING:
        return
    if seen is not None and seen.status is Status.CREATED:
        log.warning("container was not started before the daemon ended", container=container.id)
        containers.state.containers.put(msgspec.structs.replace(current, state=ContainerState.CREATED, started_ns=0))


async def _recover_pod(pods: Pods, pod: Pod, *, rebooted: bool) -> None:
    if rebooted and pod.infra is not None:  # its pid is somebody else's by now
        pod = pods.state.pods.put(msgspec.structs.replace(pod, infra=None))
    if rebooted or pod.state in (PodState.CREATING, PodState.REMOVING):
        await _quietly(pod_teardown.tear_down(pods, pod.id), pod.id)
        return
    if not can_become(pod.state, PodState.NOTREADY):
        return
    dead = pod.infra is not None and not procfs.is_alive(pod.infra.pid, pod.infra.pid_started)
    if not dead and _lacks_pids(pod):
        await _pin_pids(pods, pod)
        found = pods.state.pods.get(pod.id)
        if found is None or not can_become(found.state, PodState.NOTREADY):
            return  # a client has stopped it, where this has taken long
        pod = found
    missing = [kind for kind, path in pod.namespaces.items() if not is_pinned(Path(path))]
    if missing or dead:
        log.warning("pod sandbox is not ready any more", pod=pod.id, missing=",".join(missing), infra_ended=dead)
        pods.state.pods.keep(msgspec.structs.replace(pod, state=PodState.NOTREADY))
    else:
        infra.watch(pods, pod)
        if pod.updating is not None:
            from criollo.pods.update import update_pod  # as for clients: few pods are resized

            again = update_pod(pods, pod.id, overhead=pod.updating.overhead, resources=pod.updating.resources)
            await _quietly(again, pod.id)


def _lacks_pids(pod: Pod) -> bool:
    """A row of an older daemon names a file of the infra process."""
    place = pod.namespaces.get("pid")
    return pod.infra is not None and place is not None and not is_pinned(Path(place))


async def _pin_pids(pods: Pods, pod: Pod) -> None:
    assert pod.infra is not None
    try:
        pinned = await infra.pin_pids(pods, pod, pod.infra)
    except CriolloError as error:
        log.warning("PID namespace of a pod is lost", pod=pod.id, error=error)
        return
    current = pods.state.pods.get(pod.id)
    if current is not None and can_become(current.state, PodState.NOTREADY):
        pods.state.pods.keep(msgspec.structs.replace(current, namespaces=pinned.namespaces))


async def _quietly(work: Awaitable[object], what: str) -> None:
    """One object's trouble is its own: told, kept in its row, retried by the sweeper."""
    try:
        await work
    except (CriolloError, OSError) as error:
        log.warning("could not recover; the sweeper will retry", object=what, error=error)
