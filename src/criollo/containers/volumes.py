"""Mounts and devices as asked for → as they are on this host: looked at once, by workers that may be killed."""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.together import together
from criollo.containers import linked_logs
from criollo.containers.confine import relabel
from criollo.containers.context import Containers
from criollo.containers.rootfs import Ground
from criollo.errors import Invalid
from criollo.images.volumes import Volume, show
from criollo.linux.devices import Node, host_nodes, look_near
from criollo.model.container import Container, Device, Mount
from criollo.model.pod import Pod
from criollo.oci import runtime_spec
from criollo.specgen import asked
from criollo.specgen.devices import ANNOTATION, annotated, owned, placed
from criollo.specgen.mounts import check_absent, host_source
from criollo.specgen.paths import is_at_or_below
from criollo.specgen.request import DeviceNode, PlannedMount, SourcePropagation
from criollo.storage.base import Mapped

MOUNTS_FILES: Final = ("/etc/containers/mounts.conf", "/usr/share/containers/mounts.conf")  # of the system


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
    root = containers.bind_mount_prefix.rstrip("/")
    source = host_source(mount, root)
    rejected = source in containers.absent_sources_to_reject
    found = await containers.workers.probe(source[len(root) :], containers.probe_s, create=not rejected, root=root)
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
    nodes = await _find_devices(containers, devices)
    return owned(nodes, container.config.security) if containers.owns_devices else nodes


async def _find_devices(containers: Containers, devices: Sequence[Device]) -> tuple[DeviceNode, ...]:
    """What is on /dev itself answers; all else is looked at where it can be killed."""
    found: list[DeviceNode] = []
    for device, near in zip(devices, await threads.files(_look_near, devices), strict=True):
        nodes = near if near is not None else await _look_far(containers, device.host_path)
        found += placed(device, map(_node, nodes))
    return tuple(found)


def _look_near(devices: Sequence[Device]) -> list[list[Node] | None]:
    found = []
    for device in devices:
        try:
            found.append(look_near(device.host_path))
        except OSError as error:
            raise _no_device(device.host_path, str(error.strerror)) from error
    return found


async def _look_far(containers: Containers, path: str) -> list[Node]:
    seen = await containers.workers.devices(path, containers.probe_s)
    if seen.errno:
        raise _no_device(path, os.strerror(seen.errno))
    return [Node(*each) for each in seen.nodes]


def _no_device(path: str, why: str) -> Invalid:
    return Invalid("devices.host_path", path, f"a device node ({why})")


async def host_devices() -> tuple[DeviceNode, ...]:
    """All device nodes of the host, for privileged containers."""
    return tuple(map(_node, await threads.files(host_nodes)))


async def default_mounts(containers: Containers, ground: Ground, *, label: str) -> tuple[runtime_spec.Mount, ...]:
    """What the node gives to every container; see the module of that name. Raises as that."""
    configured = containers.additions.mounts_file
    if configured is None or not (configured or any(map(os.path.exists, MOUNTS_FILES))):
        return ()
    from criollo.containers import default_mounts  # few nodes have the files

    return await default_mounts.given(containers, configured, ground, label=label)


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
