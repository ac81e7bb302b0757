"""The database against reality, at start: what lives is adopted, what does not is torn down, what nobody owns is swept.

Each object alone, so that one broken row cannot stop the daemon; what cannot be torn down now stays a row with its
reason, and the sweeper retries it.
"""

import os
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from criollo.aio import threads
from criollo.aio.together import together
from criollo.containers import teardown as container_teardown
from criollo.containers.context import Containers
from criollo.containers.watch import record_exit, watch, watched
from criollo.errors import CriolloError, explain
from criollo.images.remove import collect_layers
from criollo.linux import files, mount, procfs
from criollo.linux.namespaces import Kind, directory_of, is_pinned, unpin
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId, is_id
from criollo.model.pod import Pod, PodState
from criollo.monitor.strays import kill_strays
from criollo.pods import infra
from criollo.pods import teardown as pod_teardown
from criollo.pods.context import Pods
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

BOOT = "boot_id"


async def recover(pods: Pods) -> None:
    """Bring rows and reality together; afterwards lists and statuses are true."""
    state = pods.state
    boot = procfs.boot_id()
    rebooted = state.fact(BOOT) not in (None, boot)
    if rebooted:
        log.info("the node was rebooted: all pods of the last boot are torn down", pods=len(state.pods))
    state.set_fact(BOOT, boot)
    await _end_strays(pods)
    await _drop_broken_rows(pods)
    await together(_recover_container(pods.containers, each, rebooted=rebooted) for each in state.containers)
    await together(_recover_pod(pods, each, rebooted=rebooted) for each in state.pods)
    await sweep_leftovers(pods)
    log.info("recovered", pods=len(state.pods), containers=len(state.containers))


async def _end_strays(pods: Pods) -> None:
    """Monitors of containers that were being made when the daemon was killed: their rows have no pid yet."""
    monitors = {each.monitor_pid for each in pods.state.containers}
    monitors |= {each.infra.monitor_pid for each in pods.state.pods if each.infra is not None}
    for container_id in await threads.spawning(kill_strays, pods.containers.exits_dir, monitors):
        log.info("ended a monitor without a container", container=container_id)


async def _drop_broken_rows(pods: Pods) -> None:
    """Rows nobody can read any more: what hangs on their ids goes, then the row."""
    containers = pods.containers
    for container_id, _ in pods.state.containers.broken:
        await _quietly(_take_away_by_id(containers, container_id), container_id)
        pods.state.containers.delete(container_id)
    for pod_id, _ in pods.state.pods.broken:
        await _quietly(_take_away_by_id(containers, pod_id), pod_id)
        for container in containers.state.containers.of_pod(pod_id):
            await _quietly(container_teardown.remove(containers, container.id), container.id)
        pods.state.pods.delete(pod_id)


async def _take_away_by_id(containers: Containers, object_id: str) -> None:
    await containers.handlers.get("").delete(object_id, cgroup_parent="", force=True)
    await containers.roots.remove(object_id)
    await threads.mounts(_unpin, containers.places.namespaces, object_id)
    await threads.mounts(_remove_directories, containers, object_id)


def _unpin(directory: Path, object_id: str) -> None:
    with explain(f"remove the namespaces of {object_id}"):
        for kind in Kind:
            unpin(directory_of(directory, kind) / object_id)


def _remove_directories(containers: Containers, object_id: str) -> None:
    with explain(f"remove the run state of {object_id}"):
        for directory in (containers.places.bundle(object_id), containers.places.pod(object_id)):
            for target in mount.below(directory):
                mount.unmount(target, detach=True)
            files.remove_tree(directory)


async def _recover_container(containers: Containers, container: Container, *, rebooted: bool) -> None:
    if container.state in (ContainerState.CREATING, ContainerState.REMOVING) or rebooted:
        await _quietly(container_teardown.tear_down(containers, container.id), container.id)
    elif container.state is not ContainerState.EXITED:
        await _quietly(_adopt(containers, container), container.id)


async def _adopt(containers: Containers, container: Container) -> None:
    """A container that ran when the daemon ended: still watched by its monitor, or ended meanwhile."""
    if procfs.is_alive(container.monitor_pid, container.monitor_started):
        watch(containers, container)
        log.info("container adopted", container=container.id, pid=container.pid)
        return
    runtime = containers.handlers.get(container.handler)
    record_exit(containers, container.id, await runtime.wait_exit(watched(containers, container)))


async def _recover_pod(pods: Pods, pod: Pod, *, rebooted: bool) -> None:
    if pod.state in (PodState.CREATING, PodState.REMOVING) or rebooted:
        await _quietly(pod_teardown.tear_down(pods, pod.id), pod.id)
        return
    if pod.state is not PodState.READY:
        return
    missing = [kind for kind, path in pod.namespaces.items() if kind != "pid" and not is_pinned(Path(path))]
    dead = pod.infra is not None and not procfs.is_alive(pod.infra.pid, pod.infra.pid_started)
    if missing or dead:
        log.warning("pod sandbox is not ready any more", pod=pod.id, missing=",".join(missing), infra_ended=dead)
        pods.state.pods.put(msgspec.structs.replace(pod, state=PodState.NOTREADY))
    else:
        infra.watch(pods, pod)


async def sweep_leftovers(pods: Pods) -> None:
    """What no row owns: run state, writable layers, layers, and networks of pods that are gone.

    Namespaces are found by the run state of their pod only: the directory they are pinned in is shared with others.
    """
    containers = pods.containers
    known = {each.id for each in pods.state.pods} | {each.id for each in pods.state.containers}
    for object_id in await threads.files(_bundles, containers):
        if object_id not in known:
            await _quietly(_take_away_by_id(containers, object_id), object_id)
    for container_id in containers.roots.ids() - known:
        await _quietly(containers.roots.remove(ContainerId(container_id)), container_id)
    await _quietly(_sweep_layers(pods), "layers")
    await _quietly(pods.network.gc([each.id for each in pods.state.pods]), "networks")


async def _sweep_layers(pods: Pods) -> None:
    images = pods.containers.images
    await collect_layers(images)
    keep = {row.name for row in images.rows.layers()} | set(images.finished) | set(images.leases)
    for name in images.layers.names() - keep:
        await images.layers.remove(name)


def _bundles(containers: Containers) -> list[str]:
    found: set[str] = set()
    for directory in (containers.places.runroot / "containers", containers.places.runroot / "pods"):
        if directory.is_dir():
            found |= {name for name in os.listdir(directory) if is_id(name)}
    return sorted(found)


async def _quietly(work: Awaitable[object], what: str) -> None:
    """One object's trouble is its own: told, kept in its row, retried by the sweeper."""
    try:
        await work
    except CriolloError as error:
        log.warning("could not recover; the sweeper will retry", object=what, error=error)
