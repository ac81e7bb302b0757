"""ExecSync through the socket while its container is being stopped, and with many probes at once."""

import threading
from typing import Any

import grpc
import pytest
from support.cri import Cri, pb
from support.daemon import Daemon, wait_for

pytestmark = pytest.mark.node


class Background:
    """A call that a thread makes with a connection of its own."""

    def __init__(self, daemon: Daemon, method: str, request: Any) -> None:
        self.answer: Any = None
        self.error: grpc.RpcError | None = None
        self._client = Cri(daemon.socket)
        self._thread = threading.Thread(target=self._call, args=(method, request))
        self._thread.start()

    def _call(self, method: str, request: Any) -> None:
        try:
            self.answer = self._client.call(method, request, timeout_s=60)
        except grpc.RpcError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._client.close()


def test_a_command_in_the_pods_pid_namespace_ends_with_its_container(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "trap 'echo heard' TERM; echo ready; while true; do sleep 0.05; done")
    config.linux.security_context.namespace_options.pid = pb.NODE
    pod_config = daemon.pod_config()
    pod_config.linux.security_context.namespace_options.pid = pb.NODE
    pod = daemon.run_pod(pod_config)
    container = daemon.run_container(pod, config)
    wait_for(lambda: "ready" in daemon.container_log(container))
    command = ["sh", "-c", "echo begun > /tmp/begun; sleep 1000"]
    running = Background(daemon, "ExecSync", pb.ExecSyncRequest(container_id=container, cmd=command, timeout=0))
    wait_for(lambda: daemon.exec(container, "test", "-e", "/tmp/begun").exit_code == 0)
    stopping = Background(daemon, "StopContainer", pb.StopContainerRequest(container_id=container, timeout=1000))
    wait_for(lambda: "heard" in daemon.container_log(container))
    assert daemon.output(container, "echo", "still here") == "still here\n"  # in the grace time
    daemon.stop_container(container)
    running.join()
    stopping.join()
    assert stopping.error is None
    assert running.error is not None or running.answer.exit_code == 137


def test_many_probes_leave_no_descriptor(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    probes = [
        Background(daemon, "ExecSync", pb.ExecSyncRequest(container_id=container, cmd=["echo", str(n)], timeout=30))
        for n in range(20)
    ]
    for n, probe in enumerate(probes):
        probe.join()
        assert probe.error is None
        assert probe.answer.stdout == b"%d\n" % n
