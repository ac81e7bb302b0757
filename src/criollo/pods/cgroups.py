"""The cgroup under which a pod's containers sit: the client's, made and removed here only when it was not there before."""

import os
from collections.abc import Iterator
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.errors import CriolloError, HostFailed, explain
from criollo.linux.cgroup import DEFAULT_PARENT, Driver, Hierarchies, driver_of, pod_cgroup
from criollo.model.ids import PodId
from criollo.model.pod import Pod, Resources
from criollo.pods.context import Pods
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_OWN: Final = {Driver.CGROUPFS: "{above}/pod{pod_id}", Driver.SYSTEMD: "{above}-pod{pod_id}.slice"}


def parent_of(pods: Pods, requested: str, pod_id: PodId) -> str:
    """The cgroup parent as runtimes take it: the client's, else one of the pod's own.

    Raises:
        Invalid: no slice for the systemd driver, or no path for cgroupfs.
    """
    driver = pods.containers.cgroup_driver
    above = DEFAULT_PARENT[driver].removesuffix(".slice")
    return pod_cgroup(driver, requested or _OWN[driver].format(above=above, pod_id=pod_id)).spec_path


async def ensure(pods: Pods, pod: Pod) -> None:
    """Make the parent unless it is there, and size it as asked; the row says that it is ours before it is made.

    Raises:
        Invalid: a limit that cannot be; the message names the field.
        HostFailed, Unavailable, TimedOut: the kernel or systemd refused.
    """
    path = _path(pod.cgroup_parent)
    missing = await threads.files(_missing, pods.hierarchies, path)
    if not missing:
        return
    lasting = (path, pod_cgroup(driver_of(pod.cgroup_parent), "").path)
    top = "" if missing in lasting else missing
    pods.state.pods.put(msgspec.structs.replace(pod, cgroup_made=True, cgroup_top=top))
    if driver_of(pod.cgroup_parent) is Driver.SYSTEMD:
        await pods.containers.units.start_slice(pod.cgroup_parent)
    else:
        with explain(f"make cgroup {pod.cgroup_parent} of pod sandbox {pod.id}"):
            await threads.files(pods.hierarchies.create, pod.cgroup_parent)
    asked = [each for each in (pod.config.resources, pod.config.overhead) if each not in (None, Resources())]
    if asked:
        from criollo.pods.update import size_new  # kubelet sizes and makes its pods' cgroups itself

        await size_new(pods, pod, asked)


def as_owned(pods: Pods, pod: Pod) -> Pod:
    """The pod with what its row says of the cgroup: it may have come down to it meanwhile, from one that was removed."""
    row = pods.state.pod(pod.id)
    return msgspec.structs.replace(pod, cgroup_made=row.cgroup_made, cgroup_top=row.cgroup_top)


async def remove(pods: Pods, pod: Pod) -> None:
    """Remove the parent when it was ours, and what came with it; absence is success. Who still sits there inherits it.

    Raises:
        HostFailed: processes are left in it.
        Unavailable, TimedOut: systemd cannot be reached.
    """
    path = _path(pod.cgroup_parent)
    if pod.cgroup_made:
        if heir := _heir(pods, pod, path):
            top = pod.cgroup_top or (heir.cgroup_top if _path(heir.cgroup_parent) == path else path)
            pods.state.pods.put(msgspec.structs.replace(heir, cgroup_made=True, cgroup_top=top))
            return
        await _remove(pods, pod.cgroup_parent, pod.id)
    for above in _above(path):
        if not pod.cgroup_top or not _is_within(above, pod.cgroup_top):
            return
        if heir := _heir(pods, pod, above):
            pods.state.pods.put(msgspec.structs.replace(heir, cgroup_top=pod.cgroup_top))
            return
        await _drop_if_empty(pods.containers, above, driver_of(pod.cgroup_parent))


async def remove_of(pods: Pods, pod_id: str) -> None:
    """Remove the parent that a pod has when its client gives none: all that can be known of a pod without a record.

    Raises:
        HostFailed: processes are left in it.
        Unavailable, TimedOut: systemd cannot be reached.
    """
    parent = parent_of(pods, "", PodId(pod_id))
    if driver_of(parent) is Driver.CGROUPFS or await threads.files(pods.hierarchies.exists, _path(parent)):
        await _remove(pods, parent, pod_id)


async def drop_default(containers: Containers) -> None:
    """Remove what is above pods whose clients give no parent, when the last one is gone: nobody else takes it away."""
    driver = containers.cgroup_driver
    await _drop_if_empty(containers, pod_cgroup(driver, "").path, driver)
    containers.units.close()


async def _drop_if_empty(containers: Containers, path: str, driver: Driver) -> None:
    if driver is Driver.CGROUPFS:
        await threads.files(containers.hierarchies.drop_if_empty, path)
    elif containers.hierarchies.exists(path) and not await threads.files(containers.hierarchies.is_used, path):
        try:
            await containers.units.drop(os.path.basename(path))
        except CriolloError as error:
            log.warning("empty slice stays", slice=path, error=error)
            return
        if not containers.hierarchies.is_unified:
            await threads.files(containers.hierarchies.drop_if_empty, path)


async def _remove(pods: Pods, parent: str, pod_id: str) -> None:
    left = HostFailed(f"cannot remove cgroup {parent} of pod sandbox {pod_id}: processes are left in it")
    if driver_of(parent) is Driver.CGROUPFS:
        if not await _is_removed(pods, parent):
            raise left
        return
    if await threads.files(pods.hierarchies.processes, _path(parent)):  # systemd would end them
        raise left
    await pods.containers.units.drop(parent)
    if pods.hierarchies.is_unified:
        return
    # Version 1: runtimes make the slice in every hierarchy, systemd takes it away from those that it uses itself.
    if not await _is_removed(pods, _path(parent)):
        raise left


async def _is_removed(pods: Pods, path: str) -> bool:
    with explain(f"remove cgroup {path}"):
        return await threads.files(pods.hierarchies.remove, path)


def _path(parent: str) -> str:
    """The path of a settled parent; "" for none."""
    return pod_cgroup(driver_of(parent), parent).path if parent else ""


def _missing(hierarchies: Hierarchies, path: str) -> str:
    """The highest cgroup on the way to `path` that is not there; empty when all are."""
    if hierarchies.exists(path):
        return ""
    return next((each for each in reversed(list(_above(path))) if not hierarchies.exists(each)), path)


def _above(path: str) -> Iterator[str]:
    """The cgroups in which a cgroup lies, nearest first, without the root."""
    while len(path := os.path.dirname(path)) > 1:
        yield path


def _heir(pods: Pods, pod: Pod, path: str) -> Pod | None:
    """Another pod that sits in a cgroup, or below it."""
    return next((each for each in pods.state.pods if each.id != pod.id and _is_within(_path(each.cgroup_parent), path)), None)


def _is_within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + "/")
