"""Whom an id means: whole, begun, ambiguous; and who may be in which pod."""

from collections.abc import Callable

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon

pytestmark = pytest.mark.node


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def alike(make: Callable[[int], str]) -> str:
    """The first digit of two ids; of 17 at the latest."""
    digits: set[str] = set()
    for number in range(17):
        digit = make(number)[0]
        if digit in digits:
            return digit
        digits.add(digit)
    raise AssertionError("ids have more digits than sixteen")


def test_an_ambiguous_id_stops_and_removes_no_container(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    digit = alike(lambda number: daemon.create(pod, daemon.container_config(image, "sleep", "1000", name=f"c{number}")))
    before = daemon.cri.call("ListContainers").containers
    for call in (daemon.stop_container, daemon.remove_container, daemon.start_container):
        code, text = refused(lambda call=call: call(digit))  # type: ignore[misc]
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "more digits" in text
    assert daemon.cri.call("ListContainers").containers == before


def test_an_ambiguous_id_stops_and_removes_no_pod(daemon: Daemon, image: str) -> None:
    digit = alike(lambda number: daemon.run_pod())
    before = daemon.cri.call("ListPodSandbox").items
    remove = pb.RemovePodSandboxRequest(pod_sandbox_id=digit)
    config = daemon.container_config(image, "true")
    for call in (
        lambda: daemon.stop_pod(digit),
        lambda: daemon.cri.call("RemovePodSandbox", remove),
        lambda: daemon.create(digit, config),
    ):
        code, text = refused(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "more digits" in text
    assert daemon.cri.call("ListPodSandbox").items == before


def test_the_beginning_of_an_id_does_for_every_verb(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.create(pod[:12], daemon.container_config(image, "sleep", "1000"))[:12]
    daemon.start_container(container)
    assert daemon.status(container).id.startswith(container)
    assert daemon.output(container, "echo", "here") == "here\n"
    daemon.stop_container(container)
    daemon.remove_container(container)
    assert not daemon.cri.call("ListContainers").containers
    daemon.remove_pod(pod[:12])
    assert not daemon.cri.call("ListPodSandbox").items


def privileged(daemon: Daemon, image: str) -> object:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.privileged = True
    return config


def test_a_pod_that_is_not_privileged_takes_no_privileged_container(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    code, text = refused(lambda: daemon.create(pod, privileged(daemon, image)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no privileged container allowed in sandbox" in text
    assert not daemon.cri.call("ListContainers").containers


def test_who_debugs_a_pod_is_privileged_if_the_client_says_that_the_pod_is_now(daemon: Daemon, image: str) -> None:
    """As kubelet has it for `kubectl debug --profile=sysadmin`: the pod's configuration now says privileged."""
    pod, now = daemon.run_pod(), daemon.pod_config()
    now.linux.security_context.privileged = True
    request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=privileged(daemon, image), sandbox_config=now)
    container = str(daemon.cri.call("CreateContainer", request).container_id)
    assert daemon.info(container)["privileged"] is True
