"""List and look up pod sandboxes; what `verbose` adds."""

import msgspec

from criollo.aio import threads
from criollo.containers.status import MAX_SPEC_BYTES
from criollo.errors import Invalid, NotFound
from criollo.linux import files
from criollo.model.pod import Pod, PodState, Resources
from criollo.pods.context import Pods
from criollo.specgen.resources import as_cri


def list_pods(pods: Pods) -> list[Pod]:
    """All that a client may see: half-made and vanishing ones are not."""
    return [pod for pod in pods.state.pods if is_visible(pods, pod)]


def is_visible(pods: Pods, pod: Pod) -> bool:
    """Not half made, not vanishing; one that could not be removed is seen again, as not ready."""
    is_vanishing = pod.state is PodState.REMOVING and not pod.trouble
    return is_collected(pods, pod) and not is_vanishing


def is_collected(pods: Pods, pod: Pod) -> bool:
    """Whether a client has got to know of it."""
    return pod.state is not PodState.CREATING and pod.id not in pods.uncollected


def find_pod(pods: Pods, pod_id: str) -> Pod:
    """A pod by id or by an unambiguous beginning of it.

    Raises:
        Invalid: the id is empty, or several pods' ids begin so.
        NotFound: no such pod.
    """
    if not pod_id:
        raise Invalid("pod_sandbox_id", pod_id, "the id of a pod sandbox")
    found = [pod for pod in pods.state.pods.by_prefix(pod_id) if is_visible(pods, pod)]
    if len(found) > 1:
        raise Invalid("pod_sandbox_id", pod_id, f"more digits: {len(found)} pod sandboxes' ids begin so")
    if not found:
        raise NotFound("pod sandbox", pod_id)
    return found[0]


async def verbose(pods: Pods, pod: Pod) -> dict[str, str]:
    """`info`: image, pid and runtimeSpec; never empty, also without an infra container."""
    spec = b"{}"
    if pod.infra is not None:
        path = pods.containers.places.bundle(pod.infra.container_id) / "config.json"
        try:
            spec = await threads.files(files.read_limited, path, MAX_SPEC_BYTES)
        except OSError:
            spec = b"{}"
    document = {
        "image": pods.pause_image if pod.infra is not None else "",
        "pid": pod.infra.pid if pod.infra is not None else 0,
        "runtimeSpec": msgspec.Raw(spec) if spec != b"{}" else _spoofed_spec(pod),
        "namespaces": pod.namespaces,
        "cgroupParent": pod.cgroup_parent,
        "network": pod.network_name,
        "trouble": pod.trouble,
        "linuxOverhead": as_cri(pod.config.overhead or Resources()),
        "linuxResources": as_cri(pod.config.resources or Resources()),
    }
    return {"info": msgspec.json.encode(document).decode()}


def _spoofed_spec(pod: Pod) -> dict[str, object]:
    """What a spec would say of a pod that has no process: its namespaces."""
    names = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid", "user": "user"}
    return {
        "ociVersion": "1.0.2",
        "hostname": pod.hostname,
        "annotations": pod.config.annotations,
        "linux": {"namespaces": [{"type": names[kind], "path": path} for kind, path in pod.namespaces.items()]},
    }
