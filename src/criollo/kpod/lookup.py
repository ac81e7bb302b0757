"""From what a person typed to the object meant: a name, an id, the beginning of an id, POD/CONTAINER.

A whole id wins, then a name, then the beginning of an id. Several containers may have one name (in different pods, or one
after another in a pod): the only one that runs is meant, otherwise the person is asked for more.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, NotFound
from criollo.kpod.session import Session
from criollo.kpod.text import short

T = TypeVar("T")

_SHORTEST_PREFIX: Final = 3


class Everything(NamedTuple):
    """All pods and containers at one moment."""

    pods: Sequence[pb.PodSandbox]
    containers: Sequence[pb.Container]

    def pod_of(self, container: pb.Container) -> pb.PodSandbox | None:
        return next((pod for pod in self.pods if pod.id == container.pod_sandbox_id), None)

    def containers_of(self, pod_id: str) -> list[pb.Container]:
        return [each for each in self.containers if each.pod_sandbox_id == pod_id]


async def everything(session: Session) -> Everything:
    """What is there."""
    pods = await session.client.runtime("ListPodSandbox", pb.ListPodSandboxRequest())
    containers = await session.client.runtime("ListContainers", pb.ListContainersRequest())
    return Everything(pods.items, containers.containers)


def find_pod(known: Everything, wanted: str) -> pb.PodSandbox | None:
    """The pod meant by `wanted`: name, NAMESPACE/NAME, id or beginning of it; None when there is none.

    Raises CriolloError when several are meant.
    """
    return _the_one(
        "pod",
        wanted,
        known.pods,
        names=lambda pod: (pod.metadata.name, f"{pod.metadata.namespace}/{pod.metadata.name}"),
        runs=lambda pod: pod.state == pb.SANDBOX_READY,
    )


def find_container(known: Everything, wanted: str) -> pb.Container | None:
    """The container meant by `wanted`: name, POD/NAME, id or beginning of it, or a pod that has only one.

    Raises CriolloError when several are meant.
    """

    def names(container: pb.Container) -> Iterable[str]:
        name = container.metadata.name
        pod = known.pod_of(container)
        return (name,) if pod is None else (name, f"{pod.metadata.name}/{name}")

    found = _the_one("container", wanted, known.containers, names=names, runs=lambda each: each.state == pb.CONTAINER_RUNNING)
    if found is None and (pod := find_pod(known, wanted)) is not None:
        inside = known.containers_of(pod.id)
        if len(inside) > 1:
            choices = ", ".join(f"{pod.metadata.name}/{each.metadata.name}" for each in inside)
            raise CriolloError(f"pod {wanted} has {len(inside)} containers; say which: {choices}")
        found = inside[0] if inside else None
    return found


def require_container(known: Everything, wanted: str) -> pb.Container:
    """As `find_container`, but it must be there. Raises NotFound."""
    found = find_container(known, wanted)
    if found is None:
        raise NotFound("container", wanted, "kpod ps -a lists them")
    return found


def require_either(known: Everything, wanted: str) -> pb.PodSandbox | pb.Container:
    """A pod, else a container. Raises NotFound."""
    found = find_pod(known, wanted) or find_container(known, wanted)
    if found is None:
        raise NotFound("pod or container", wanted, "kpod pods and kpod ps -a list them")
    return found


def _the_one(
    kind: str, wanted: str, things: Sequence[T], *, names: Callable[[T], Iterable[str]], runs: Callable[[T], bool]
) -> T | None:
    for matches in (
        lambda thing: thing.id == wanted,
        lambda thing: wanted in names(thing),
        lambda thing: len(wanted) >= _SHORTEST_PREFIX and thing.id.startswith(wanted),
    ):
        found = [thing for thing in things if matches(thing)]
        if len(found) > 1:
            found = [thing for thing in found if runs(thing)] or found
        if len(found) > 1:
            ids = ", ".join(short(thing.id) for thing in found[:8])  # type: ignore[attr-defined]  # every kind has an id
            raise CriolloError(f"{kind} {wanted} is not clear: {len(found)} match ({ids}); give an id")
        if found:
            return found[0]
    return None
