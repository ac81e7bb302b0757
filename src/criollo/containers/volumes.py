"""Mounts and devices as asked for → as they are on this host: looked at once, by workers that may be killed."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from criollo.aio import threads
from criollo.aio.together import together
from criollo.containers.context import Containers
from criollo.errors import Invalid
from criollo.images.volumes import Volume, show
from criollo.linux.devices import Node, host_nodes, look
from criollo.model.container import Container, Device, Mount
from criollo.specgen.linux import placed
from criollo.specgen.mounts import check_absent, host_source
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
        show(containers.images, container.id, images[at], mapped) if at in images else _plan(containers, mount)
        for at, mount in enumerate(container.config.mounts)
    )
    return tuple(chain.from_iterable(planned))


async def _plan(containers: Containers, mount: Mount) -> list[PlannedMount]:
    source = host_source(mount, containers.bind_mount_prefix)
    rejected = source in containers.absent_sources_to_reject
    found = await containers.workers.probe(source, PROBE_LIMIT_S, create=not rejected)
    if found.kind == "missing":
        check_absent(source, containers.absent_sources_to_reject)
    return [PlannedMount(mount=mount, source=found.path, propagation=SourcePropagation(found.propagation))]


async def find_devices(devices: Sequence[Device]) -> tuple[DeviceNode, ...]:
    """The nodes behind requested devices; a directory stands for all nodes below it.

    Raises:
        Invalid: a path is no device and no directory of them.
    """
    return await threads.files(_find_devices, devices)


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
