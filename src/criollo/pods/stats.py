"""What pods use: their cgroup, their network, their containers. A pod that vanishes meanwhile is left out, and harms no other.

The addresses of a network namespace are read from inside it, by one thread for all pods, which is thrown away.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.containers.status import Stats, samples_of, stats_of
from criollo.linux import namespaces
from criollo.linux.cgroup import driver_of, pod_cgroup
from criollo.model.container import Container
from criollo.model.pod import Pod, PodState
from criollo.pods.context import Pods
from criollo.stats.collect import Sample
from criollo.stats.network import Interface, Network, read_interfaces
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

DEFAULT_INTERFACE = "eth0"  # the name under which pods know their first network


class PodStats(NamedTuple):
    """`sample` is of the pod's cgroup."""

    pod: Pod
    sample: Sample | None
    network: Network
    containers: Sequence[tuple[Container, Stats]]


async def pod_stats(pods: Pods, targets: Sequence[Pod]) -> list[PodStats]:
    """What pods use, in order; those that are not ready are left out."""
    ready = [pod for pod in targets if pod.state is PodState.READY]
    inside = [each for pod in ready for each in pods.state.containers.of_pod(pod.id) if each.is_running]
    places: dict[str, str] = {pod.id: cgroup_of_pod(pod) for pod in ready if pod.cgroup_parent}
    samples = await samples_of(pods.containers, places)
    networks = await networks_of(pods, ready)
    used: dict[str, list[tuple[Container, Stats]]] = {pod.id: [] for pod in ready}
    for container, stats in zip(inside, await stats_of(pods.containers, inside), strict=True):
        used[container.pod_id].append((container, stats))
    return [PodStats(pod, samples.get(pod.id), networks[pod.id], used[pod.id]) for pod in ready]


def cgroup_of_pod(pod: Pod) -> str:
    """The path of a settled pod's cgroup below the hierarchies."""
    return pod_cgroup(driver_of(pod.cgroup_parent), pod.cgroup_parent).path


async def networks_of(pods: Pods, targets: Sequence[Pod]) -> dict[str, Network]:
    """The networks of pods by their ids, as collected in the background where that is done, else as they are now."""
    known = pods.collected.networks if pods.collected else {}
    unknown: dict[str, str] = {pod.id: pod.namespaces.get("net", "") for pod in targets if pod.id not in known}
    found = await threads.fresh(read_networks, unknown, pods.containers.clock) if unknown else {}
    return {pod.id: known.get(pod.id) or found[pod.id] for pod in targets}


def read_networks(places: Mapping[str, str], clock: Callable[[], int]) -> dict[str, Network]:
    """By pod; goes from one namespace into the next, so the thread must end afterwards."""
    return {pod_id: Network(clock(), _read_network(pod_id, Path(path)) if path else ()) for pod_id, path in places.items()}


def _read_network(pod_id: str, path: Path) -> Sequence[Interface]:
    try:
        return namespaces.run_in(path, read_interfaces)
    except OSError as error:  # it is being stopped
        log.debug("network statistics of a pod left out", pod=pod_id, cause=error)
        return []
