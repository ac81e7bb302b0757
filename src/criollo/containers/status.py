"""List and look up containers; what `verbose` adds; their statistics."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.watch import cgroup_of
from criollo.linux import files
from criollo.model.container import Container, ContainerState
from criollo.stats.collect import Sample
from criollo.storage.usages import Measured

MAX_SPEC_BYTES = 16 << 20


def list_containers(containers: Containers) -> list[Container]:
    """All that a client may see: half-made and vanishing ones are not; one that could not be removed is, in state UNKNOWN."""
    return containers.state.containers.visible()


def find_container(containers: Containers, container_id: str) -> Container:
    """A container by id or by an unambiguous beginning of it. Raises Invalid, NotFound (see `state.records`)."""
    return containers.state.containers.find(container_id)


async def spec_of(containers: Containers, object_id: str) -> bytes:
    """The spec in the bundle of a container, or of a pod's infra container; an empty document when there is none."""
    path = containers.places.bundle(object_id) / "config.json"
    try:
        return await threads.files(files.read_limited, path, MAX_SPEC_BYTES)
    except OSError:
        return b"{}"


def verbose(container: Container, spec: bytes) -> dict[str, str]:
    """`info`: pid, sandboxID, runtimeSpec, privileged, as crictl inspect and its users expect them."""
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
    samples = await samples_of(containers, places)
    used = await layers_of(containers, [each.id for each in targets], fresh=fresh)
    return [Stats(samples.get(each.id), used.get(each.id)) for each in targets]


async def samples_of(containers: Containers, places: Mapping[str, str], *, anew: bool = False) -> dict[str, Sample]:
    """As `Collector.collect`, of containers and pods; of one that is removed meanwhile nothing is kept."""
    state = containers.state
    try:
        return await threads.files(containers.collector.collect, places, anew=anew)
    finally:
        for each in places:
            if each not in state.containers and each not in state.pods:
                containers.collector.forget(each)


async def layers_of(containers: Containers, container_ids: Sequence[str], *, fresh: bool = False) -> dict[str, Measured | None]:
    """As `Usages.known`, of those that are still there: it would remember the others for ever."""
    there = [each for each in container_ids if each in containers.state.containers]
    return dict(zip(there, await containers.usages.known(there, fresh=fresh), strict=True))
