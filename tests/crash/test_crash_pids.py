"""PID namespaces that containers join, when the process that they came with ends and its number may be another's."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb, told
from support.daemon import Daemon, wait_for
from support.rows import change_pod, reboot

pytestmark = pytest.mark.node

KNOBS = {"sweep_s": 0.3}


def shared_pod(daemon: Daemon) -> str:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    return daemon.run_pod(config)


def sharing(daemon: Daemon, image: str, name: str = "main") -> Any:
    config = daemon.container_config(image, "sleep", "1000", name=name)
    config.linux.security_context.namespace_options.pid = pb.POD
    return config


def debugging(daemon: Daemon, image: str, target: str) -> Any:
    config = daemon.container_config(image, "sleep", "1000", name="debug")
    config.linux.security_context.namespace_options.pid = pb.TARGET
    config.linux.security_context.namespace_options.target_id = target
    return config


def infra_pid(daemon: Daemon, pod: str) -> int:
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    return int(json.loads(daemon.cri.call("PodSandboxStatus", request).info["info"])["pid"])


def is_ready(daemon: Daemon, pod: str) -> bool:
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod)
    return bool(daemon.cri.call("PodSandboxStatus", request).status.state == pb.SANDBOX_READY)


def pinned(daemon: Daemon) -> list[str]:
    return os.listdir(daemon.runroot / "pidns")


def namespace_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process in the host's PID namespace."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def test_containers_join_the_namespace_that_is_pinned(daemon: Daemon, image: str) -> None:
    pod = shared_pod(daemon)
    assert pinned(daemon) == [pod]
    container = daemon.run_container(pod, sharing(daemon, image))
    where = (daemon.runroot / "pidns" / pod).stat().st_ino
    assert where == namespace_of(infra_pid(daemon, pod)) == namespace_of(daemon.info(container)["pid"])
    daemon.restart(signal.SIGKILL)
    second = daemon.run_container(pod, sharing(daemon, image, "second"))
    assert namespace_of(daemon.info(second)["pid"]) == where
    daemon.remove_pod(pod)
    assert pinned(daemon) == []


def test_pods_that_do_not_share_pin_nothing(daemon: Daemon, image: str) -> None:
    daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert pinned(daemon) == []


def test_no_container_joins_after_the_infra_container_has_ended(daemon: Daemon, image: str) -> None:
    pod = shared_pod(daemon)
    os.kill(infra_pid(daemon, pod), signal.SIGKILL)
    wait_for(lambda: not is_ready(daemon, pod))
    assert told(lambda: daemon.create(pod, sharing(daemon, image)))[0] is grpc.StatusCode.FAILED_PRECONDITION
    daemon.remove_pod(pod)
    assert pinned(daemon) == []


def test_a_number_that_is_anothers_by_now_is_not_taken_for_the_infra_container(
    daemon: Daemon, image: str, stranger: int
) -> None:
    pod = shared_pod(daemon)
    ended = infra_pid(daemon, pod)
    daemon.kill()
    os.kill(ended, signal.SIGKILL)
    wait_for((daemon.runroot / "exits" / pod).exists)
    change_pod(daemon, pod, infra={"pid": stranger}, namespaces={"pid": f"/proc/{stranger}/ns/pid"})
    daemon.start()
    assert not is_ready(daemon, pod)
    assert told(lambda: daemon.create(pod, sharing(daemon, image)))[0] is grpc.StatusCode.FAILED_PRECONDITION
    daemon.remove_pod(pod)
    assert Path(f"/proc/{stranger}").exists()


def test_a_pod_of_an_older_daemon_is_pinned_when_it_is_adopted(daemon: Daemon, image: str) -> None:
    pod = shared_pod(daemon)
    infra = infra_pid(daemon, pod)
    daemon.kill()
    subprocess.run(["umount", str(daemon.runroot / "pidns" / pod)], check=True)
    change_pod(daemon, pod, namespaces={"pid": f"/proc/{infra}/ns/pid"})
    daemon.start()
    assert is_ready(daemon, pod)
    assert (daemon.runroot / "pidns" / pod).stat().st_ino == namespace_of(infra)
    container = daemon.run_container(pod, sharing(daemon, image))
    assert namespace_of(daemon.info(container)["pid"]) == namespace_of(infra)


def test_the_namespace_of_a_debugged_container_is_pinned_for_the_one_that_joins_it(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    target = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    debug = daemon.run_container(pod, debugging(daemon, image, target))
    assert pinned(daemon) == [debug]
    assert namespace_of(daemon.info(debug)["pid"]) == namespace_of(daemon.info(target)["pid"])
    daemon.restart(signal.SIGKILL)
    daemon.remove_container(debug)
    assert pinned(daemon) == []


def test_a_target_that_has_ended_is_refused(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    target = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    daemon.stop_container(target)
    assert told(lambda: daemon.create(pod, debugging(daemon, image, target)))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert pinned(daemon) == []


def test_after_a_reboot_nothing_is_pinned(daemon: Daemon, image: str) -> None:
    pod = shared_pod(daemon)
    target = daemon.run_container(pod, sharing(daemon, image))
    daemon.run_container(pod, debugging(daemon, image, target))
    daemon.stop()
    reboot(daemon)
    daemon.start()
    assert pinned(daemon) == []
