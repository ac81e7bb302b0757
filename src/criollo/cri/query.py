"""Filters of List* and Stream* calls, and the batches of a stream.

A filter's conditions must all hold; what is not given does not restrict. Ids may be prefixes. A stream sends every item once,
at least one item a message, each message bounded.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from criollo.cri.pb import api_pb2 as pb
from criollo.cri.write import container_state, pod_state
from criollo.errors import Invalid
from criollo.model.container import Container
from criollo.model.pod import Pod

BATCH_ITEMS = 500
BATCH_BYTES = 1 << 20

T = TypeVar("T", bound=Message)


class _StatsFilter(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def pod_sandbox_id(self) -> str: ...
    @property
    def label_selector(self) -> Mapping[str, str]: ...


def pods(found: Iterable[Pod], wanted: pb.PodSandboxFilter) -> list[Pod]:
    """The pods that pass. Raises Invalid for a state the CRI does not have."""
    state = _state(wanted, pb.PodSandboxState.values()) if wanted.HasField("state") else None
    selector = dict(wanted.label_selector)
    return [
        pod
        for pod in found
        if pod.id.startswith(wanted.id)
        and (state is None or pod_state(pod.state) == state)
        and selector.items() <= pod.config.labels.items()
    ]


def pods_by_label(found: Iterable[Pod], wanted: pb.PodSandboxStatsFilter) -> list[Pod]:
    """The pods that pass a filter of id and labels."""
    selector = dict(wanted.label_selector)
    return [pod for pod in found if pod.id.startswith(wanted.id) and selector.items() <= pod.config.labels.items()]


def containers(found: Iterable[Container], wanted: pb.ContainerFilter) -> list[Container]:
    """The containers that pass. Raises Invalid for a state the CRI does not have."""
    state = _state(wanted, pb.ContainerState.values()) if wanted.HasField("state") else None
    return [container for container in by_owner(found, wanted) if state is None or container_state(container.state) == state]


def by_owner(found: Iterable[Container], wanted: _StatsFilter) -> list[Container]:
    """The containers that pass a filter of id, pod and labels."""
    selector = dict(wanted.label_selector)
    return [
        container
        for container in found
        if container.id.startswith(wanted.id)
        and container.pod_id.startswith(wanted.pod_sandbox_id)
        and selector.items() <= container.config.labels.items()
    ]


def batches(items: Iterable[T], *, limit_items: int = BATCH_ITEMS, limit_bytes: int = BATCH_BYTES) -> Iterator[Sequence[T]]:
    """The items in order, in lists of one or more; a list ends before it would pass a limit."""
    batch: list[T] = []
    size = 0
    for item in items:
        length = item.ByteSize()
        if batch and (len(batch) == limit_items or size + length > limit_bytes):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def batches_of_bytes(items: Iterable[bytes], *, limit_bytes: int = BATCH_BYTES) -> Iterator[bytes]:
    """Encoded items as encoded messages of one or more, bounded likewise."""
    batch: list[bytes] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH_ITEMS or size + len(item) > limit_bytes):
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(item)
        size += len(item)
    if batch:
        yield b"".join(batch)


def _state(wanted: pb.PodSandboxFilter | pb.ContainerFilter, known: Sequence[int]) -> int:
    number = int(wanted.state.state)
    if number not in known:
        raise Invalid("filter.state", number, f"one of {', '.join(map(str, known))}")
    return number
