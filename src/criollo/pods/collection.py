"""Collecting statistics and metrics in the background, for lists that then read nothing (`collection_period`)."""

import asyncio
from typing import Final

from criollo.aio import threads
from criollo.containers.status import layers_of, samples_of
from criollo.containers.watch import cgroup_of
from criollo.model.pod import PodState
from criollo.pods.collected import Collected
from criollo.pods.context import Pods
from criollo.pods.metrics import PodMetrics, pod_metrics
from criollo.pods.stats import cgroup_of_pod, read_networks
from criollo.stats.catalogue import Value
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_SLACK: Final = 1.5  # how many periods a sample counts: the next collection may be late


async def collect_forever(pods: Pods, period_s: int) -> None:
    """Collect, and again after each period. Lists tell what was collected until the task is cancelled."""
    collected = pods.collected = Collected(period_s)
    pods.containers.collector.lasts_ns = int(period_s * _SLACK * 1_000_000_000)
    failing = False
    try:
        while True:
            try:
                await collect(pods, collected)
            except Exception as error:  # the border of a background loop: the node works on without numbers
                if not failing:
                    log.warning("statistics cannot be collected; trying again each period", period_s=period_s, error=error)
                failing = True
            else:
                if failing:
                    log.info("statistics are collected again")
                failing = False
            await asyncio.sleep(period_s)
    finally:
        pods.collected = None
        pods.containers.collector.lasts_ns = 0


async def collect(pods: Pods, collected: Collected) -> None:
    """Read everything once."""
    ready = [pod for pod in pods.state.pods if pod.state is PodState.READY]
    containers = pods.containers
    running = [each for each in pods.state.containers if each.is_running]
    places: dict[str, str] = {each.id: cgroup_of(containers, each) for each in running}
    places |= {pod.id: cgroup_of_pod(pod) for pod in ready if pod.cgroup_parent}
    await samples_of(containers, places, anew=True)
    await layers_of(containers, [each.id for each in running])
    namespaces: dict[str, str] = {pod.id: pod.namespaces.get("net", "") for pod in ready}
    collected.networks = await threads.fresh(read_networks, namespaces, containers.clock)
    found: dict[str, tuple[int, list[Value]]] = {}
    for each in await pod_metrics(pods, ready, _same, anew=True):
        found[each.pod.id] = each.at_ns, list(each.values)
        found.update({container.id: (at_ns, list(values)) for container, at_ns, values in each.containers})
    collected.metrics = found


def _same(value: PodMetrics) -> PodMetrics:
    return value
