"""A pod's attachment to its network: made at its start, checked by a new daemon, taken back at its stop or by the sweeper."""

import asyncio

import msgspec

from criollo.errors import CriolloError
from criollo.model.ids import PodId
from criollo.model.pod import Pod, PodState
from criollo.network.attachment import Attachment
from criollo.pods.context import Pods
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


def attachment(pod: Pod) -> Attachment:
    """The pod as a network sees it."""
    config = pod.config
    return Attachment(
        pod_id=pod.id,
        netns=pod.namespaces.get("net", ""),
        name=config.name,
        namespace=config.namespace,
        uid=config.uid,
        ports=config.ports,
        annotations=config.annotations,
        cgroup_path=pod.cgroup_parent,
        dns=config.dns,
    )


async def announce(pods: Pods, pod: Pod) -> None:
    """Keep for the teardown what `connect` will do, while the namespace is still being made."""
    if not pod.host_network:
        await pods.network.announce(attachment(pod))


async def connect(pods: Pods, pod: Pod) -> tuple[tuple[str, ...], str]:
    """CNI ADD of an announced pod; addresses and the network's name, both empty for a pod in the host's network."""
    if pod.host_network:
        return (), ""
    attached = await pods.network.add(attachment(pod), announced=True)
    return attached.ips, attached.network_name


async def check(pods: Pods, pod_id: PodId, *, limit_s: float) -> None:
    """CNI CHECK of a ready pod; what a plugin says against its attachment is the pod's trouble until a later check."""
    async with pods.locks.hold(pod_id):
        pod = pods.state.pods.get(pod_id)
        if pod is None or pod.state is not PodState.READY or pod.host_network:
            return
        trouble = ""
        try:
            async with asyncio.timeout(limit_s):
                await pods.network.check(attachment(pod))
        except TimeoutError:
            trouble = f"cannot check network of pod {pod_id}: no answer within {limit_s:g} s"
        except CriolloError as error:
            trouble = str(error)
        if trouble:
            log.warning(
                "network of a pod is not as it was made; make the pod anew if it cannot be reached", pod=pod_id, cause=trouble
            )
        pod = pods.state.pod(pod_id)
        if trouble != pod.trouble:
            pods.state.pods.keep(msgspec.structs.replace(pod, trouble=trouble))


async def disconnect(pods: Pods, pod_id: PodId) -> None:
    """CNI DEL; a failure becomes the pod's trouble, never the caller's: the rest of the pod need not wait for it.

    The caller holds the pod's lock.
    """
    if pods.state.pod(pod_id).network_down:
        return
    try:
        await pods.network.delete(attachment(pods.state.pod(pod_id)))
    except CriolloError as error:
        pod = pods.state.pod(pod_id)
        if str(error) != pod.trouble:  # the sweeper meets the same every 30 s
            log.warning("network deletion failed; the sweeper will retry", pod=pod_id, error=error)
            pods.state.pods.keep(msgspec.structs.replace(pod, trouble=str(error)))
        return
    pods.state.pods.keep(msgspec.structs.replace(pods.state.pod(pod_id), network_down=True, trouble=""))
