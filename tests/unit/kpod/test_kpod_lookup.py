import pytest

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, NotFound
from criollo.kpod.lookup import Everything, find_container, find_pod, require_container, require_either


def pod(digit: str, name: str, *, ready: bool = True, namespace: str = "default") -> pb.PodSandbox:
    state = pb.SANDBOX_READY if ready else pb.SANDBOX_NOTREADY
    return pb.PodSandbox(id=digit * 64, metadata=pb.PodSandboxMetadata(name=name, namespace=namespace), state=state)


def container(digit: str, name: str, in_pod: str, *, runs: bool = True) -> pb.Container:
    state = pb.CONTAINER_RUNNING if runs else pb.CONTAINER_EXITED
    return pb.Container(id=digit * 64, pod_sandbox_id=in_pod * 64, metadata=pb.ContainerMetadata(name=name), state=state)


KNOWN = Everything(
    pods=[pod("a", "web"), pod("b", "db"), pod("c", "db", namespace="test"), pod("d", "old", ready=False), pod("e", "old")],
    containers=[
        container("1", "web", "a"),
        container("2", "app", "b"),
        container("3", "app", "c"),
        container("4", "again", "d", runs=False),
        container("5", "again", "e"),
        container("6", "side", "a"),
    ],
)


@pytest.mark.parametrize(
    ("wanted", "found"), [("web", "a"), ("a" * 64, "a"), ("aaa", "a"), ("test/db", "c"), ("old", "e"), ("ddd", "d")]
)
def test_pods_are_found_by_name_or_id(wanted: str, found: str) -> None:
    result = find_pod(KNOWN, wanted)
    assert result is not None
    assert result.id == found * 64


@pytest.mark.parametrize(("wanted", "found"), [("web", "1"), ("db/app", None), ("222", "2"), ("again", "5"), ("web/side", "6")])
def test_containers_are_found_by_name_pod_or_id(wanted: str, found: str | None) -> None:
    if found is None:
        with pytest.raises(CriolloError, match="not clear: 2 match"):
            find_container(KNOWN, wanted)
    else:
        assert require_container(KNOWN, wanted).id == found * 64


def test_a_pod_stands_for_its_only_container() -> None:
    assert require_container(KNOWN, "test/db").id == "3" * 64
    with pytest.raises(CriolloError, match="say which: web/web, web/side"):
        find_container(KNOWN, "aaaa")


def test_what_is_not_clear_is_refused_with_ids() -> None:
    with pytest.raises(CriolloError, match="pod db is not clear: 2 match \\(bbbbbbbbbbbb, cccccccccccc\\); give an id"):
        find_pod(KNOWN, "db")


def test_two_letters_are_no_id() -> None:
    assert find_pod(KNOWN, "aa") is None


def test_a_pod_comes_before_a_container_of_its_name() -> None:
    assert isinstance(require_either(KNOWN, "web"), pb.PodSandbox)
    with pytest.raises(NotFound):
        require_either(KNOWN, "nothing")
