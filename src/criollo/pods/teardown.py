"""The one way down for a pod: a failed run, RemovePodSandbox and recovery all come through here.

Idempotent: it finds what exists by the id. What cannot be removed now leaves the row, with the reason, for the sweeper.
"""

import msgspec

from criollo.aio.together import all_through
from criollo.containers.create import abandon_creates
from criollo.containers.teardown import remove
from criollo.errors import CriolloError
from criollo.model.ids import PodId
from criollo.model.moves import can_become
from criollo.model.pod import PodState
from criollo.pods import cgroups, files
from criollo.pods.context import Pods
from criollo.pods.stop import take_down
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def remove_pod(pods: Pods, pod_id: str) -> None:
    """Remove a pod sandbox with its containers, running or not; an unknown one is success.

    One that is being removed is waited for; one that could not be removed is tried again.

    Raises:
        Invalid: several pods' ids begin so.
        CriolloError: see `tear_down`.
    Source: CRI v1, RemovePodSandbox.
    """
    found = pods.state.pods.find_any(pod_id, vanishing=True)
    if found is not None:
        await pods.removes.join(found.id, lambda job: tear_down(pods, found.id))


async def tear_down(pods: Pods, pod_id: PodId) -> None:
    """Take away everything a pod has, and its row last. Safe to repeat and at any state.

    Raises:
        CriolloError: something could not be taken away; the row says what, and the sweeper tries again.
    """
    async with pods.locks.hold(pod_id):
        pod = pods.state.pods.get(pod_id)
        if pod is None:
            return
        if can_become(pod.state, PodState.REMOVING):
            # `keep`: a full disk must not keep us from making room.
            pods.state.pods.keep(msgspec.structs.replace(pod, state=PodState.REMOVING))
        try:
            await _take_away(pods, pod_id)
            pods.state.pods.delete(pod_id)
        except CriolloError as error:
            pods.state.pods.keep(msgspec.structs.replace(pods.state.pod(pod_id), trouble=str(error)))
            raise
        pods.containers.collector.forget(pod_id)
    log.info("pod sandbox removed", pod=pod_id)


async def _take_away(pods: Pods, pod_id: PodId) -> None:
    """A network that could not be deleted stays in CNI's cache, and `Cni.gc` retries it: the pod need not wait."""
    containers = pods.containers
    await abandon_creates(containers, pod_id)
    await all_through(remove(containers, each.id) for each in containers.state.containers.of_pod(pod_id))
    await take_down(pods, pod_id)
    pod = pods.state.pod(pod_id)
    await files.remove(pod, runroot=containers.places.runroot)
    await cgroups.remove(pods, pod)
