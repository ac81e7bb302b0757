"""StopPodSandbox: no process left, no network left, nothing forgotten."""

import msgspec

from criollo.aio import threads
from criollo.aio.together import all_through
from criollo.containers import linked_logs
from criollo.containers.create import abandon_creates
from criollo.containers.stop import stop
from criollo.model.ids import PodId
from criollo.model.moves import can_become, is_live
from criollo.model.pod import Pod, PodState
from criollo.pods import connection, infra, namespaces
from criollo.pods.context import Pods
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def stop_pod(pods: Pods, pod_id: str) -> None:
    """Kill what runs in a pod sandbox and give its network back; unknown or stopped is success.

    A network plugin that fails does not keep the pod: its namespace goes, the deletion is retried by the sweeper, and
    the reason stays visible on the pod.

    Raises:
        Invalid: several pods' ids begin so.
    Source: CRI v1, StopPodSandbox.
    """
    found = pods.state.pods.find_any(pod_id)
    if found is not None:
        await pods.stops.join(found.id, lambda job: _stop(pods, found))


async def _stop(pods: Pods, pod: Pod) -> None:
    async with pods.locks.hold(pod.id):
        current = pods.state.pods.get(pod.id)
        if current is None or (current.state is PodState.NOTREADY and current.network_down and not current.namespaces):
            return
        if can_become(current.state, PodState.NOTREADY):
            pods.state.pods.keep(msgspec.structs.replace(current, state=PodState.NOTREADY))
        await take_down(pods, pod.id)
    log.info("pod sandbox stopped", pod=pod.id)


async def take_down(pods: Pods, pod_id: PodId) -> None:
    """Processes, network and namespaces of a pod; its row says what has gone.

    The caller holds the pod's lock and has set it to a state in which no container can be created.
    """
    containers = pods.containers
    await abandon_creates(containers, pod_id)
    await pods.forwards.end(pod_id)
    running = [each for each in containers.state.containers.of_pod(pod_id) if is_live(each.state)]
    await all_through((connection.disconnect(pods, pod_id), *(stop(containers, each.id, grace_s=0) for each in running)))
    pod = pods.state.pod(pod_id)
    await infra.remove(pods, pod)
    if linked_logs.KEY in pod.files:
        await threads.mounts(linked_logs.unbind, pod.files, pod.logs)
    await namespaces.unpin_pod(pod, directory=containers.places.namespaces)
    pods.state.pods.keep(msgspec.structs.replace(pods.state.pod(pod_id), namespaces={}, infra=None))
