"""The metrics of pods: of the groups that the settings name, and when each container was last seen.

All is read in one thread that is thrown away, because it goes through the network namespaces. What vanishes meanwhile is left
out and harms no other.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from criollo.aio import threads
from criollo.containers.status import layers_of
from criollo.containers.watch import cgroup_of
from criollo.linux.cgroup import Hierarchies
from criollo.model.container import Container
from criollo.model.pod import Pod, PodState
from criollo.pods.context import Pods
from criollo.pods.stats import read_networks
from criollo.stats.catalogue import Value
from criollo.stats.metrics import MetricSource, network_metrics, read_metrics
from criollo.storage.usages import Measured
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_NS: Final = 1_000_000_000
_UNLIMITED: Final = 1 << 62  # and above, as cAdvisor has it

T = TypeVar("T")


class PodMetrics(NamedTuple):
    """Values of the pod itself and of its containers that run, with the time they were read at (ns)."""

    pod: Pod
    at_ns: int
    values: Sequence[Value]
    containers: Sequence[tuple[Container, int, Sequence[Value]]]


class _Target(NamedTuple):
    container: Container
    cgroup: str
    layer: Measured | None


class _Plan(NamedTuple):
    hierarchies: Hierarchies
    groups: frozenset[str]
    store: str
    clock: Callable[[], int]


async def pod_metrics(pods: Pods, targets: Sequence[Pod], write: Callable[[PodMetrics], T], *, anew: bool = False) -> list[T]:
    """The metrics of pods that are ready, in order, each through `write`, which runs in the reading thread.

    What was collected in the background is told again unless `anew`.
    """
    containers, groups = pods.containers, pods.metric_groups
    ready = [pod for pod in targets if pod.state is PodState.READY]
    inside = [each for pod in ready for each in pods.state.containers.of_pod(pod.id) if each.is_running]
    layers = await layers_of(containers, [each.id for each in inside]) if "disk" in groups else {}
    targets_of: dict[str, list[_Target]] = {pod.id: [] for pod in ready}
    for container in inside:
        layer = layers.get(container.id)
        targets_of[container.pod_id].append(_Target(container, cgroup_of(containers, container), layer))
    store = containers.roots.mountpoint if "disk" in groups else ""
    plan = _Plan(pods.hierarchies, groups, store, containers.clock)
    known = pods.collected.metrics if pods.collected is not None and not anew else {}

    def work() -> list[T]:
        return [write(_of_pod(plan, pod, targets_of[pod.id], known)) for pod in ready]

    return await threads.fresh(work)


def _of_pod(plan: _Plan, pod: Pod, targets: Sequence[_Target], known: Mapping[str, tuple[int, list[Value]]]) -> PodMetrics:
    now = plan.clock()
    at_ns, values = known.get(pod.id) or (now, _of_network(plan, pod))
    found = []
    for target in targets:
        read = known.get(target.container.id) or (now, _of_container(plan, target))
        if read[1]:
            found.append((target.container, *read))
    return PodMetrics(pod, at_ns, values, found)


def _of_network(plan: _Plan, pod: Pod) -> list[Value]:
    if "network" not in plan.groups:
        return []
    return network_metrics(read_networks({pod.id: pod.namespaces.get("net", "")}, plan.clock)[pod.id].interfaces)


def _of_container(plan: _Plan, target: _Target) -> list[Value]:
    """Empty when the container is gone."""
    try:
        found = read_metrics(MetricSource(plan.hierarchies, target.cgroup, target.container.pid), plan.groups)
        if found is None:
            return []
        found.append(Value("last_seen", (), plan.clock() // _NS))
        if "spec" in plan.groups:
            found += _spec(target.container)
        return found + _disk(plan.store, target.layer) if "disk" in plan.groups else found
    except (OSError, ValueError) as error:
        log.debug("metrics of a container left out", container=target.container.id, cause=error)
        return []


def _spec(container: Container) -> list[Value]:
    given = container.resources
    reserved = given.unified.get("memory.min", "0")
    named = {
        "spec_memory_limit_bytes": _limit(given.memory_limit_bytes),
        "spec_memory_swap_limit_bytes": _limit(given.memory_swap_limit_bytes),
        "spec_memory_reservation_limit_bytes": _limit(int(reserved)) if reserved.isascii() and reserved.isdigit() else 0,
        "spec_cpu_shares": max(0, given.cpu_shares),
        "spec_cpu_period": max(0, given.cpu_period_us),
        "start_time_seconds": container.created_ns // _NS,
    }
    if given.cpu_quota_us > 0:
        named["spec_cpu_quota"] = given.cpu_quota_us
    return [Value(name, (), value) for name, value in named.items()]


def _limit(limit_bytes: int) -> int:
    return limit_bytes if 0 < limit_bytes <= _UNLIMITED else 0


def _disk(store: str, layer: Measured | None) -> list[Value]:
    status = os.statvfs(store)
    named = {
        "fs_inodes_free": status.f_ffree,
        "fs_inodes_total": status.f_files,
        "fs_limit_bytes": status.f_blocks * status.f_frsize,
    }
    if layer is not None:
        named["fs_usage_bytes"] = layer.usage.bytes
    return [Value(name, (), value) for name, value in named.items()]
