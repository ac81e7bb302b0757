"""List and look up containers; what `verbose` adds; their statistics."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.watch import cgroup_of
from criollo.errors import Invalid, NotFound
from criollo.linux import files
from criollo.model.container import Container, ContainerState
from criollo.stats.collect import Sample
from criollo.storage.usages import Measured

MAX_SPEC_BYTES = 16 << 20


def list_containers(containers: Containers) -> list[Container]:
    """All that a client may see: half-made and vanishing ones are not."""
    return [container for container in containers.state.containers if is_visible(containers, container)]


def is_visible(containers: Containers, container: Container) -> bool:
    """Not half made, not vanishing; one that could not be removed is seen again, in state UNKNOWN."""
    is_vanishing = container.state is ContainerState.REMOVING and not container.trouble
    return is_collected(containers, container) and not is_vanishing


def is_collected(containers: Containers, container: Container) -> bool:
    """Whether a client has got to know of it."""
    return container.state is not ContainerState.CREATING and container.id not in containers.uncollected


def find_container(containers: Containers, container_id: str) -> Container:
    """A container by id or by an unambiguous beginning of it.

    Raises:
        Invalid: the id is empty, or several containers' ids begin so.
        NotFound: no such container.
    """
    if not container_id:
        raise Invalid("container_id", container_id, "the id of a container")
    found = [each for each in containers.state.containers.by_prefix(container_id) if is_visible(containers, each)]
    if len(found) > 1:
        raise Invalid("container_id", container_id, f"more digits: {len(found)} containers' ids begin so")
    if not found:
        raise NotFound("container", container_id)
    return found[0]


async def verbose(containers: Containers, container: Container) -> dict[str, str]:
    """`info`: pid, sandboxID, runtimeSpec, privileged, as crictl inspect and its users expect them."""
    path = containers.places.bundle(container.id) / "config.json"
    try:
        spec = await threads.files(files.read_limited, path, MAX_SPEC_BYTES)
    except OSError:
        spec = b"{}"
    document = {
        "sandboxID": container.pod_id,
        "pid": container.pid,
        "runtimeSpec": msgspec.Raw(spec),
        "privileged": container.privileged,
        "trouble": container.trouble,
    }
    return {"info": msgspec.json.encode(document).decode()}


class Stats(NamedTuple):
    """What a container uses: its cgroup's counters (None when it does not run) and its writable layer (None: not known yet)."""

    sample: Sample | None
    writable: Measured | None


async def stats_of(containers: Containers, targets: Sequence[Container], *, fresh: bool = False) -> list[Stats]:
    """Statistics of several containers, in order, in one thread hop; writable layers as they were measured last, or `fresh`."""
    places: dict[str, str] = {each.id: cgroup_of(containers, each) for each in targets if each.state is ContainerState.RUNNING}
    samples = await threads.files(containers.collector.collect, places)
    used = await containers.usages.known([each.id for each in targets], fresh=fresh)
    return [Stats(samples.get(each.id), writable) for each, writable in zip(targets, used, strict=True)]
