"""What clients are told of pods, containers and images; filters and batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.cri import query, write
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.model.container import Container, ContainerConfig, ContainerState, ContainerUser, ImageSpec, Mount, Propagation
from criollo.model.ids import ContainerId, ImageId, PodId
from criollo.model.image import Image
from criollo.model.pod import (
    HugepageLimit,
    IdMapping,
    NamespaceMode,
    Namespaces,
    Pod,
    PodConfig,
    PodSecurity,
    PodState,
    Resources,
    UserNamespace,
)


def make_pod(
    pod_id: str = "a" * 64, *, state: PodState = PodState.READY, network: int = 0, labels: dict[str, str] | None = None
) -> Pod:
    user = UserNamespace(mode=NamespaceMode.POD, uids=(IdMapping(host_id=1, container_id=0, length=2),))
    security = PodSecurity(namespaces=Namespaces(network=NamespaceMode(network), user=user))
    config = PodConfig(
        name="p", uid="u", namespace="n", attempt=1, labels=labels or {}, annotations={"x": "y"}, security=security
    )
    return Pod(
        id=PodId(pod_id), name="k8s", config=config, handler="crun", state=state, created_ns=5, ips=("10.0.0.2", "fd00::2")
    )


def make_container(
    container_id: str = "b" * 64, *, pod_id: str = "a" * 64, state: ContainerState = ContainerState.RUNNING
) -> Container:
    image = ImageSpec(image="f" * 64, user_specified_image="busybox:latest")
    return Container(
        id=ContainerId(container_id),
        pod_id=PodId(pod_id),
        name="k8s",
        config=ContainerConfig(name="c", attempt=3, image=image, labels={"app": "x", "tier": "y"}),
        handler="crun",
        state=state,
        created_ns=1,
        started_ns=2,
        finished_ns=3,
        exit_code=137,
        reason="OOMKilled",
        image_id=ImageId("f" * 64),
        image_ref="busybox@sha256:x",
        log_path="/var/log/c.log",
        stop_signal=2,
        user=ContainerUser(uid=1000, gid=100, groups=(100, 4)),
        resources=Resources(
            cpu_shares=512, hugepage_limits=(HugepageLimit(page_size="2MB", limit_bytes=4),), unified={"memory.high": "1"}
        ),
        mounts=(
            Mount(container_path="/d", host_path="/s", readonly=True, propagation=Propagation.BIDIRECTIONAL),
            Mount(container_path="/i", image="f" * 64, user_specified_image="busybox", image_ref="busybox@sha256:x"),
        ),
    )


def test_pod_status_has_addresses_and_namespaces() -> None:
    status = write.pod_status(make_pod())
    assert status.state == pb.SANDBOX_READY
    assert status.network.ip == "10.0.0.2"
    assert [each.ip for each in status.network.additional_ips] == ["fd00::2"]
    assert status.linux.namespaces.options.userns_options.uids[0].length == 2
    assert (status.metadata.name, status.metadata.attempt, status.runtime_handler, status.created_at) == ("p", 1, "crun", 5)
    assert dict(status.annotations) == {"x": "y"}


def test_pod_with_the_nodes_network_has_no_address() -> None:
    assert write.pod_status(make_pod(network=2)).network.ip == ""


@pytest.mark.parametrize("state", list(PodState))
def test_only_a_ready_pod_is_ready(state: PodState) -> None:
    assert (write.pod(make_pod(state=state)).state == pb.SANDBOX_READY) == (state is PodState.READY)


def test_container_status_tells_everything() -> None:
    status = write.container_status(make_container(state=ContainerState.EXITED))
    assert status.state == pb.CONTAINER_EXITED
    assert (status.created_at, status.started_at, status.finished_at) == (1, 2, 3)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert (status.image.image, status.image_ref, status.image_id) == ("busybox:latest", "busybox@sha256:x", "f" * 64)
    assert (status.user.linux.uid, status.user.linux.gid, list(status.user.linux.supplemental_groups)) == (1000, 100, [100, 4])
    assert status.stop_signal == pb.SIGNAL_SIGINT
    assert status.mounts[0].propagation == pb.PROPAGATION_BIDIRECTIONAL
    assert not status.mounts[0].HasField("image")
    volume = status.mounts[1].image
    assert (volume.image, volume.user_specified_image, volume.image_ref) == ("f" * 64, "busybox", "busybox@sha256:x")
    assert status.resources.linux.hugepage_limits[0].page_size == "2MB"
    assert dict(status.resources.linux.unified) == {"memory.high": "1"}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ContainerState.CREATED, pb.CONTAINER_CREATED),
        (ContainerState.RUNNING, pb.CONTAINER_RUNNING),
        (ContainerState.EXITED, pb.CONTAINER_EXITED),
        (ContainerState.REMOVING, pb.CONTAINER_UNKNOWN),
    ],
)
def test_container_states_map(state: ContainerState, expected: int) -> None:
    assert write.container(make_container(state=state)).state == expected


@pytest.mark.parametrize(
    ("user", "uid", "name"),
    [
        ("", None, ""),
        ("1000", 1000, ""),
        ("0:0", 0, ""),
        ("www:data", None, "www"),
        ("99999999999", None, "99999999999"),
        ("٣", None, "٣"),
    ],
)
def test_image_user_is_a_number_or_a_name(user: str, uid: int | None, name: str) -> None:
    image = Image(
        id=ImageId("f" * 64), names=("a:b",), manifest_digest="", manifest=b"", config=b"", layers=(), size_bytes=0, pulled_ns=0
    )
    message = write.image(image, user=user, pinned=True)
    assert (message.uid.value if message.HasField("uid") else None, message.username) == (uid, name)
    assert message.size == 1
    assert message.pinned


CONTAINERS = [
    make_container("aa" + "0" * 62, pod_id="1" * 64),
    make_container("ab" + "0" * 62, pod_id="1" * 64, state=ContainerState.EXITED),
    make_container("bb" + "0" * 62, pod_id="2" * 64),
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (pb.ContainerFilter(), "aa ab bb"),
        (pb.ContainerFilter(id="a"), "aa ab"),
        (pb.ContainerFilter(pod_sandbox_id="11"), "aa ab"),
        (pb.ContainerFilter(state=pb.ContainerStateValue(state=pb.CONTAINER_RUNNING)), "aa bb"),
        (pb.ContainerFilter(state=pb.ContainerStateValue(state=pb.CONTAINER_CREATED)), ""),
        (pb.ContainerFilter(label_selector={"app": "x", "tier": "y"}), "aa ab bb"),
        (pb.ContainerFilter(label_selector={"app": "x", "tier": "z"}), ""),
        (pb.ContainerFilter(id="a", state=pb.ContainerStateValue(state=pb.CONTAINER_EXITED)), "ab"),
        (pb.ContainerFilter(id="zz"), ""),
    ],
)
def test_filter_conditions_must_all_hold(wanted: pb.ContainerFilter, expected: str) -> None:
    assert " ".join(each.id[:2] for each in query.containers(CONTAINERS, wanted)) == expected


def test_pod_filter_knows_state_and_labels() -> None:
    pods = [make_pod("a" * 64, labels={"k": "v"}), make_pod("b" * 64, state=PodState.NOTREADY)]
    not_ready = pb.PodSandboxFilter(state=pb.PodSandboxStateValue(state=pb.SANDBOX_NOTREADY))
    assert [pod.id[0] for pod in query.pods(pods, not_ready)] == ["b"]
    assert [pod.id[0] for pod in query.pods(pods, pb.PodSandboxFilter(label_selector={"k": "v"}))] == ["a"]


def test_unknown_state_in_a_filter_is_refused() -> None:
    with pytest.raises(Invalid, match=r"filter\.state"):
        query.containers([], pb.ContainerFilter(state=pb.ContainerStateValue(state=9)))


@given(st.lists(st.integers(0, 50)), st.integers(1, 5), st.integers(1, 100))
def test_batches_hold_everything_once_and_are_bounded(sizes: list[int], items: int, size: int) -> None:
    messages = [pb.Container(id=f"{number}-" + "x" * length) for number, length in enumerate(sizes)]
    found = list(query.batches(messages, limit_items=items, limit_bytes=size))
    assert [message for batch in found for message in batch] == messages
    assert all(0 < len(batch) <= items for batch in found)
    assert all(len(batch) == 1 or sum(message.ByteSize() for message in batch) <= size for batch in found)


def test_batches_of_bytes_are_messages_within_the_limit() -> None:
    items = [pb.StreamContainersResponse(containers=[pb.Container(id=f"{number:064x}")]) for number in range(7)]
    encoded = [each.SerializeToString() for each in items]
    found = list(query.batches_of_bytes(encoded, limit_bytes=3 * len(encoded[0])))
    assert [len(pb.StreamContainersResponse.FromString(each).containers) for each in found] == [3, 3, 1]
    assert b"".join(found) == b"".join(encoded)
    assert list(query.batches_of_bytes([])) == []
    assert list(query.batches_of_bytes([encoded[0]], limit_bytes=1)) == [encoded[0]]
