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


async def ensure(pods: Pods, pod: Pod) -> Pod:
    """Make the parent unless it is there; the row says that it is ours before it is made. systemd makes its own."""
    if pods.containers.cgroup_driver is not Driver.CGROUPFS:
        return pod
    if await threads.files(pods.hierarchies.exists, pod.cgroup_parent):
        return pod
    pod = pods.state.pods.put(msgspec.structs.replace(pod, cgroup_made=True))
    with explain(f"make cgroup {pod.cgroup_parent} of pod sandbox {pod.id}"):
        await threads.files(pods.hierarchies.create, pod.cgroup_parent)
    return pod


async def remove(pods: Pods, pod: Pod) -> None:
    """Remove the parent when it was ours; absence is success.

    Raises:
        HostFailed: processes are left in it.
    """
    if pod.cgroup_made and not await threads.files(pods.hierarchies.remove, pod.cgroup_parent):
        raise HostFailed(f"cannot remove cgroup {pod.cgroup_parent} of pod sandbox {pod.id}: processes are left in it")
