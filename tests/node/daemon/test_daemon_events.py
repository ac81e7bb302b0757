"""Pod events by the real daemon: what kubelet's evented PLEG hears, and how it ends."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import Cri, pb
from support.daemon import Daemon, running_daemon, wait_for
from support.registry import Registry


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"crio.runtime.enable_pod_events": True}
    place = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(place, registries=registry.registries_conf(), settings=settings) as running:
        running.pull(registry.reference("busybox"))
        yield running


class Listener:
    """A client that reads events in a thread."""

    def __init__(self, daemon: Daemon) -> None:
        self.events: list[Any] = []
        self.code: grpc.StatusCode | None = None
        self._cri = Cri(str(daemon.socket))  # of its own: the daemon's is closed when that is stopped
        self._call = self._cri.open("GetContainerEvents")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._call:
                self.events.append(event)
            self.code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.code = error.code()

    def kinds(self, subject: str) -> list[int]:
        return [event.container_event_type for event in self.events if event.container_id == subject]

    def ended(self) -> grpc.StatusCode | None:
        self._thread.join(30)
        return self.code

    def close(self) -> None:
        self._call.cancel()
        self._thread.join(30)
        self._cri.close()


@pytest.fixture
def listener(daemon: Daemon) -> Iterator[Listener]:
    made = Listener(daemon)

    def hears() -> bool:
        """Of pods that come and go, from the first one after the server has heard of the client."""
        daemon.remove_pod(daemon.run_pod())
        return bool(made.events)

    wait_for(hears)
    yield made
    made.close()


def test_life_of_a_pod_is_told_in_order(daemon: Daemon, image: str, listener: Listener) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sh", "-c", "exit 7"))
    wait_for(lambda: pb.CONTAINER_STOPPED_EVENT in listener.kinds(container))
    daemon.remove_container(container)
    daemon.remove_pod(pod)
    wait_for(lambda: pb.CONTAINER_DELETED_EVENT in listener.kinds(pod))
    assert listener.kinds(container) == [0, 1, 2, 3]
    assert listener.kinds(pod) == [0, 1, 2, 3]
    stopped = next(e for e in listener.events if e.container_id == container and e.container_event_type == 2)
    assert [(each.id, each.state, each.exit_code) for each in stopped.containers_statuses] == [
        (container, pb.CONTAINER_EXITED, 7)
    ]
    assert stopped.pod_sandbox_status.id == pod
    assert stopped.pod_sandbox_status.network.ip
    assert stopped.created_at >= stopped.containers_statuses[0].finished_at


def test_process_killed_from_outside_is_told(daemon: Daemon, image: str, listener: Listener) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    daemon.exec(container, "kill", "-9", "1")
    daemon.stop_container(container)
    wait_for(lambda: pb.CONTAINER_STOPPED_EVENT in listener.kinds(container))
    daemon.remove_pod(pod)


def test_pod_status_has_its_containers(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    answer = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod))
    assert [each.id for each in answer.containers_statuses] == [container]
    assert answer.timestamp > answer.containers_statuses[0].started_at > 0
    daemon.remove_pod(pod)


def test_stop_of_the_daemon_ends_the_stream_and_is_not_held_by_it(daemon: Daemon, listener: Listener) -> None:
    daemon.stop()
    assert listener.ended() is grpc.StatusCode.OK
    daemon.start()


def test_switched_off_says_how_to_switch_on(registry: Registry, tmp_path: Path) -> None:
    with running_daemon(tmp_path, registries=registry.registries_conf()) as quiet:
        with pytest.raises(grpc.RpcError, match="set enable_pod_events") as refused:
            quiet.cri.stream("GetContainerEvents")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
