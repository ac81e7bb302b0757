"""What goes on while a container is being stopped, and what is told of it."""

import os
import signal

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, monitor_of, wait_for

pytestmark = pytest.mark.node

HEEDLESS = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done"


def heedless(daemon: Daemon, image: str) -> str:
    """A container that hears its stop signal and goes on."""
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sh", "-c", HEEDLESS))
    wait_for(lambda: "ready" in daemon.container_log(container))
    return container


def begin_stop(daemon: Daemon, container: str, timeout: int) -> grpc.Future:
    stop = daemon.cri.begin("StopContainer", pb.StopContainerRequest(container_id=container, timeout=timeout))
    wait_for(lambda: "heard" in daemon.container_log(container))
    return stop


def test_commands_run_in_a_container_during_its_grace_and_end_with_it(daemon: Daemon, image: str) -> None:
    container = heedless(daemon, image)
    stop = begin_stop(daemon, container, 1000)
    assert daemon.output(container, "echo", "still here") == "still here\n"
    request = pb.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "touch /begun; sleep 777"], timeout=60)
    long = daemon.cri.begin("ExecSync", request)
    wait_for(lambda: daemon.exec(container, "test", "-e", "/begun").exit_code == 0)
    assert not stop.done()
    daemon.stop_container(container)
    stop.result()
    assert long.exception() is not None or long.result().exit_code == 137
    with pytest.raises(grpc.RpcError) as refused:
        daemon.exec(container, "true")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    daemon.wait_state(container, pb.CONTAINER_EXITED)


def test_who_ignores_its_signal_is_told_of_as_tools_look_for_it(daemon: Daemon, image: str) -> None:
    container = heedless(daemon, image)
    begin_stop(daemon, container, 1).result()
    assert f"Stopping container {container} with stop signal(15) timed out." in daemon.log()


def test_a_stop_signal_of_the_clients_is_told_of(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.stop_signal = pb.SIGNAL_SIGINT
    daemon.create(daemon.run_pod(), config)
    assert "Override stop signal to SIGINT" in daemon.log()


def test_a_killed_monitor_is_told_of_as_tools_look_for_it(daemon: Daemon, image: str) -> None:
    container = heedless(daemon, image)
    os.kill(monitor_of(container), signal.SIGKILL)
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert f"Conmon for container {container} is stopped" in daemon.log()
