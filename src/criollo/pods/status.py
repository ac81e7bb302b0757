"""List and look up pod sandboxes; what `verbose` adds."""

import msgspec

from criollo.containers import status as container_status
from criollo.model.pod import Pod, Resources
from criollo.pods.context import Pods
from criollo.specgen.resources import as_cri


def list_pods(pods: Pods) -> list[Pod]:
    """All that a client may see: half-made and vanishing ones are not; one that could not be removed is, as not ready."""
    return pods.state.pods.visible()


def find_pod(pods: Pods, pod_id: str) -> Pod:
    """A pod by id or by an unambiguous beginning of it. Raises Invalid, NotFound (see `state.records`)."""
    return pods.state.pods.find(pod_id)


async def spec_of(pods: Pods, pod: Pod) -> bytes:
    """The spec of the infra container; an empty document when there is none."""
    return b"{}" if pod.infra is None else await container_status.spec_of(pods.containers, pod.infra.container_id)


def verbose(pods: Pods, pod: Pod, spec: bytes) -> dict[str, str]:
    """`info`: image, pid and runtimeSpec; never empty, also without an infra container."""
    document = {
        "image": pods.pause_image if pod.infra is not None else "",
        "pid": pod.infra.pid if pod.infra is not None else 0,
        "runtimeSpec": msgspec.Raw(spec) if spec != b"{}" else _spoofed_spec(pod),
        "namespaces": pod.namespaces,
        "cgroupParent": pod.cgroup_parent,
        "network": pod.network_name,
        "logDirectory": pod.logs,
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
