"""What pods use: their cgroup, their network, their containers. A pod that vanishes meanwhile is left out, and harms no other.

The addresses of a network namespace are read from inside it, by one thread for all pods, which is thrown away.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.containers.status import Stats, stats_of
from criollo.linux import namespaces
from criollo.linux.cgroup import pod_cgroup
from criollo.model.container import Container
from criollo.model.pod import Pod, PodState
from criollo.pods.context import Pods
from criollo.stats.collect import Sample
from criollo.stats.network import Interface, read_interfaces
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

DEFAULT_INTERFACE = "eth0"  # the name under which pods know their first network


class PodStats(NamedTuple):
    """`sample` is of the pod's cgroup; no interfaces where the network is the host's or cannot be seen any more."""

    pod: Pod
    sample: Sample | None
    interfaces: Sequence[Interface]
    containers: Sequence[tuple[Container, Stats]]


async def pod_stats(pods: Pods, targets: Sequence[Pod]) -> list[PodStats]:
    """What pods use, in order; those that are not ready are left out."""
    ready = [pod for pod in targets if pod.state is PodState.READY]
    inside = [each for pod in ready for each in pods.state.containers.of_pod(pod.id) if each.is_running]
    driver = pods.containers.cgroup_driver
    places: dict[str, str] = {pod.id: pod_cgroup(driver, pod.cgroup_parent).path for pod in ready if pod.cgroup_parent}
    samples = await threads.files(pods.containers.collector.collect, places)
    networks = await threads.fresh(_read_networks, {pod.id: pod.namespaces.get("net", "") for pod in ready})
    used: dict[str, list[tuple[Container, Stats]]] = {pod.id: [] for pod in ready}
    for container, stats in zip(inside, await stats_of(pods.containers, inside), strict=True):
        used[container.pod_id].append((container, stats))
    return [PodStats(pod, samples.get(pod.id), networks[pod.id], used[pod.id]) for pod in ready]


def _read_networks(places: Mapping[str, str]) -> dict[str, list[Interface]]:
    """By pod; goes from one namespace into the next."""
    return {pod_id: _read_network(pod_id, Path(path)) if path else [] for pod_id, path in places.items()}


def _read_network(pod_id: str, path: Path) -> list[Interface]:
    try:
        return namespaces.run_in(path, read_interfaces)
    except OSError as error:  # it is being stopped
        log.debug("network statistics of a pod left out", pod=pod_id, cause=error)
        return []
