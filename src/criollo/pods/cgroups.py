"""The cgroup under which a pod's containers sit: the client's, made and removed here only when it was not there before."""

import msgspec

from criollo.aio import threads
from criollo.errors import HostFailed, explain
from criollo.linux.cgroup import DEFAULT_PARENT, Driver, pod_cgroup
from criollo.model.ids import PodId
from criollo.model.pod import Pod
from criollo.pods.context import Pods


def parent_of(pods: Pods, requested: str, pod_id: PodId) -> str:
    """The cgroup parent as runtimes take it: the client's, else one of the pod's own (cgroupfs) or system.slice.

    Raises:
        Invalid: no slice for the systemd driver, or no path for cgroupfs.
    """
    driver = pods.containers.cgroup_driver
    if not requested and driver is Driver.CGROUPFS:
        requested = f"{DEFAULT_PARENT[driver]}/pod{pod_id}"
    return pod_cgroup(driver, requested).spec_path


async def ensure(pods: Pods, pod: Pod) -> None:
    """Make the parent unless it is there; the row says that it is ours before it is made. systemd makes its own."""
    if pods.containers.cgroup_driver is not Driver.CGROUPFS:
        return
    if await threads.files(pods.hierarchies.exists, pod.cgroup_parent):
        return
    pods.state.pods.put(msgspec.structs.replace(pod, cgroup_made=True))
    with explain(f"make cgroup {pod.cgroup_parent} of pod sandbox {pod.id}"):
        await threads.files(pods.hierarchies.create, pod.cgroup_parent)


async def remove(pods: Pods, pod: Pod) -> None:
    """Remove the parent when it was ours; absence is success. Who still sits there inherits it.

    Raises:
        HostFailed: processes are left in it.
    """
    if not pod.cgroup_made:
        return
    if sharers := [each for each in pods.state.pods if each.id != pod.id and _is_within(each.cgroup_parent, pod.cgroup_parent)]:
        pods.state.pods.put(msgspec.structs.replace(sharers[0], cgroup_made=True))
        return
    if not await threads.files(pods.hierarchies.remove, pod.cgroup_parent):
        raise HostFailed(f"cannot remove cgroup {pod.cgroup_parent} of pod sandbox {pod.id}: processes are left in it")


async def remove_of(pods: Pods, pod_id: str) -> None:
    """Remove the parent that a pod has when its client gives none: all that can be known of a pod without a record.

    Raises:
        HostFailed: processes are left in it.
    """
    if pods.containers.cgroup_driver is not Driver.CGROUPFS:
        return
    path = parent_of(pods, "", PodId(pod_id))
    if not await threads.files(pods.hierarchies.remove, path):
        raise HostFailed(f"cannot remove cgroup {path} of pod sandbox {pod_id}: processes are left in it")


def _is_within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + "/")
