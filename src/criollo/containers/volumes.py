"""Mounts and devices as asked for → as they are on this host: looked at once, by workers that may be killed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.together import together
from criollo.containers import linked_logs
from criollo.containers.confine import relabel
from criollo.containers.context import Containers
from criollo.errors import Invalid
from criollo.images.volumes import Volume, show
from criollo.linux.devices import Node, host_nodes, look
from criollo.model.container import Container, Device, Mount
from criollo.model.pod import Pod
from criollo.specgen import asked
from criollo.specgen.devices import ANNOTATION, annotated, owned, placed
from criollo.specgen.mounts import check_absent, host_source
from criollo.specgen.paths import is_at_or_below
from criollo.specgen.request import DeviceNode, PlannedMount, SourcePropagation
from criollo.storage.base import Mapped

PROBE_LIMIT_S: Final = 20


async def plan_mounts(
    containers: Containers, container: Container, images: Mapping[int, Volume], *, mapped: Mapped | None = None
) -> tuple[PlannedMount, ...]:
    """Every requested mount with the real path of its source; a missing source directory is made, mode 0755.

    `images` are the mounts of images among them, by their places; they are mounted for the namespace `mapped`.

    Raises:
        VolumeFailed: an image cannot be mounted.
        Invalid: a source that must not be made is missing, or is nothing that can be mounted.
        TimedOut: a source hangs (a dead network filesystem); the message names it.
    """
    planned = await together(
        show(containers.images, container.id, images[at], mapped, label=container.mount_label)
        if at in images
        else _plan(containers, container, mount)
        for at, mount in enumerate(container.config.mounts)
    )
    pod = containers.state.pods.get(container.pod_id)
    return guarded(chain.from_iterable(planned), pod.files if pod is not None else {})


def guarded(planned: Iterable[PlannedMount], files: Mapping[str, str]) -> tuple[PlannedMount, ...]:
    """The same, with the logs of the pod read-only wherever they are mounted: a runtime would make that bind writable."""
    logs = files.get(linked_logs.KEY)
    if logs is None:
        return tuple(planned)
    return tuple(
        msgspec.structs.replace(each, mount=msgspec.structs.replace(each.mount, readonly=True))
        if is_at_or_below(each.source, logs)
        else each
        for each in planned
    )


async def _plan(containers: Containers, container: Container, mount: Mount) -> list[PlannedMount]:
    source = host_source(mount, containers.bind_mount_prefix)
    rejected = source in containers.absent_sources_to_reject
    found = await containers.workers.probe(source, PROBE_LIMIT_S, create=not rejected)
    if found.kind == "missing":
        check_absent(source, containers.absent_sources_to_reject)
    await relabel(containers, container, mount, found.path)
    return [PlannedMount(mount=mount, source=found.path, propagation=SourcePropagation(found.propagation))]


async def find_devices(containers: Containers, pod: Pod, container: Container) -> tuple[DeviceNode, ...]:
    """The nodes behind the devices that are configured, annotated and requested; a directory stands for all nodes below it.

    Raises:
        Invalid: a path is no device and no directory of them.
        Denied: the annotation names one that is not allowed.
    """
    annotations = {**pod.config.annotations, **container.config.annotations}
    wish = asked.find(annotations, ANNOTATION, containers.defaults_for(pod).allowed_annotations) if annotations else None
    annotated_ones = annotated(wish, containers.allowed_devices) if wish else ()
    devices = (*containers.additional_devices, *annotated_ones, *container.config.devices)
    if not devices:
        return ()
    nodes = await threads.files(_find_devices, devices)
    return owned(nodes, container.config.security) if containers.owns_devices else nodes


def _find_devices(devices: Sequence[Device]) -> tuple[DeviceNode, ...]:
    found: list[DeviceNode] = []
    for device in devices:
        try:
            nodes = look(device.host_path)
        except OSError as error:
            raise Invalid("devices.host_path", device.host_path, f"a device node ({error.strerror})") from error
        found += placed(device, map(_node, nodes))
    return tuple(found)


async def host_devices() -> tuple[DeviceNode, ...]:
    """All device nodes of the host, for privileged containers."""
    return tuple(map(_node, await threads.files(host_nodes)))


def _node(node: Node) -> DeviceNode:
    return DeviceNode(
        path=node.path,
        host_path=node.path,
        type=node.type,
        major=node.major,
        minor=node.minor,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
    )
