"""SELinux at the making of pods and containers: labels that the policy has, and volumes that get them.

Only nodes with SELinux load this.
"""

from typing import Final

from criollo.containers.context import Containers
from criollo.model.container import Container, ContainerConfig, Mount
from criollo.model.pod import Pod, PodConfig
from criollo.security.selinux import Labeller, Labels, check_labels, skips_relabel
from criollo.specgen.asked import find
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

TRY_SKIP: Final = "try-skip-volume-selinux-label.crio.io"


def of_pod(labeller: Labeller, config: PodConfig) -> Labels:
    """The labels of a new pod; its row must be written before anybody else asks.

    Raises:
        Invalid: the policy has no such label.
        Exhausted: all levels are taken.
    """
    labels = labeller.of_pod(config)
    check_labels(labels)
    return labels


def of_container(labeller: Labeller, config: ContainerConfig, pod: Pod) -> Labels:
    """The labels of a new container. Raises as `of_pod`."""
    labels = labeller.of_container(config, pod)
    check_labels(labels)
    return labels


async def relabel(containers: Containers, container: Container, mount: Mount, source: str) -> None:
    """Give a volume the label of the container that mounts it, where that was asked for.

    Raises:
        Denied: the node itself lives by the label of that place.
        TimedOut: it hangs.
        CriolloError: the kernel refused.
    """
    pod = containers.state.pods.get(container.pod_id)
    own, above = container.config.security.selinux, pod.config.security.selinux if pod is not None else None
    if not mount.selinux_relabel or not container.mount_label or skips_relabel(own, above):
        return
    try_skip = False
    if pod is not None:
        allowed = containers.defaults_for(pod).allowed_annotations
        try_skip = find(pod.config.annotations, TRY_SKIP, allowed) == "true"
    done = await containers.workers.relabel(source, container.mount_label, skip_if_right=try_skip)
    log.debug("volume relabelled", container=container.id, path=source, changed=done.changed, skipped=done.skipped)
