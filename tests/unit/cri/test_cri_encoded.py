"""Items of lists, kept as bytes."""

import msgspec
import pytest
from test_cri_write import make_container

from criollo.cri import encoded, write
from criollo.cri.encoded import Encoded, nested
from criollo.cri.pb import api_pb2 as pb
from criollo.model.container import Container, ContainerState


def listing(made: list[str]) -> Encoded[Container]:
    """A list of containers that notes whose messages were made."""

    def one(container: Container) -> pb.ListContainersResponse:
        made.append(container.id)
        return pb.ListContainersResponse(containers=[write.container(container)])

    return Encoded[Container](one)


def containers(count: int) -> list[Container]:
    return [msgspec.structs.replace(make_container(), id=f"{number:064x}") for number in range(count)]


def test_list_is_the_message_of_all_its_items() -> None:
    found = containers(5)
    whole = pb.ListContainersResponse(containers=[write.container(each) for each in found])
    assert pb.ListContainersResponse.FromString(listing([]).of(found)) == whole
    assert listing([]).of([]) == b""


def test_only_records_that_changed_are_written_anew() -> None:
    made: list[str] = []
    lists, found = listing(made), containers(3)
    first = lists.of(found)
    assert lists.of(found) == first
    changed = msgspec.structs.replace(found[1], state=ContainerState.EXITED)
    second = pb.ListContainersResponse.FromString(lists.of([found[0], changed, found[2]]))
    assert second.containers[1].state == pb.CONTAINER_EXITED
    assert made == [found[0].id, found[1].id, found[2].id, found[1].id]


def test_objects_that_are_gone_are_forgotten_in_the_end() -> None:
    lists = listing([])
    for each in containers(encoded.KEPT + 10):
        lists.of([each])
    assert len(lists._kept) <= encoded.KEPT + 1


def test_items_that_are_asked_for_one_by_one_are_forgotten_in_the_end_too() -> None:
    items = listing([])
    for each in containers(encoded.KEPT + 10):
        items.item(each)
    assert len(items._kept) <= encoded.KEPT


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 20_000])
def test_message_within_a_message_is_its_field(length: int) -> None:
    inner = pb.PodSandboxStats(attributes=pb.PodSandboxAttributes(id="x" * length))
    outer = pb.ListPodSandboxStatsResponse(stats=[inner])
    assert nested(1, inner.SerializeToString()) == outer.SerializeToString()
    metadata = pb.PodSandboxStatus(metadata=pb.PodSandboxMetadata(name="x" * length))
    assert nested(2, metadata.metadata.SerializeToString()) == metadata.SerializeToString()
