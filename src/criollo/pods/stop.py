"""StopPodSandbox: no process left, no network left, nothing forgotten."""

import msgspec

from criollo.aio.together import together
from criollo.containers.stop import stop
from criollo.model.container import ContainerState
from criollo.model.pod import Pod, PodState
from criollo.pods import connection, infra, namespaces
from criollo.pods.context import Pods
from criollo.pods.status import is_visible
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def stop_pod(pods: Pods, pod_id: str) -> None:
    """Kill what runs in a pod sandbox and give its network back; unknown or stopped is success.

    A network plugin that fails does not keep the pod: its namespace goes, the deletion is retried by the sweeper, and
    the reason stays visible on the pod.

    Source: CRI v1, StopPodSandbox.
    """
    found = [pod for pod in pods.state.pods.by_prefix(pod_id) if is_visible(pods, pod)]
    if len(found) == 1:
        await pods.stops.join(found[0].id, lambda job: _stop(pods, found[0]))


async def _stop(pods: Pods, pod: Pod) -> None:
    async with pods.locks.hold(pod.id):
        current = pods.state.pods.get(pod.id)
        if current is None or (current.state is PodState.NOTREADY and current.network_down and not current.namespaces):
            return
        if current.state is PodState.READY:
            pods.state.pods.put(msgspec.structs.replace(current, state=PodState.NOTREADY))
        await take_down(pods, pod.id)
    log.info("pod sandbox stopped", pod=pod.id)


async def take_down(pods: Pods, pod_id: str) -> None:
    """Processes, network and namespaces of a pod; its row says what has gone. Caller holds the pod's lock."""
    containers = pods.containers
    live = (ContainerState.CREATED, ContainerState.RUNNING)
    running = [each for each in containers.state.containers.of_pod(pod_id) if each.state in live]
    await together((connection.disconnect(pods, pod_id), *(stop(containers, each.id, grace_s=0) for each in running)))
    pod = pods.state.pods.get(pod_id)
    assert pod is not None
    await infra.remove(pods, pod)
    await namespaces.unpin_pod(pod, directory=containers.places.namespaces)
    pods.state.pods.put(msgspec.structs.replace(pod, namespaces={}, infra=None))
