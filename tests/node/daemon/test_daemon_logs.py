"""Where logs are: where the client says, else below `log_dir`; what happens to them."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for

pytestmark = pytest.mark.node


def pod_without_place(daemon: Daemon) -> str:
    config = daemon.pod_config()
    config.log_directory = ""
    return daemon.run_pod(config)


def pod_info(daemon: Daemon, pod: str) -> Any:
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    return json.loads(daemon.cri.call("PodSandboxStatus", request).info["info"])


def test_a_pod_without_a_place_for_logs_gets_one_that_goes_with_it(daemon: Daemon, image: str) -> None:
    pod = pod_without_place(daemon)
    place = daemon.logs / pod
    assert (place.stat().st_mode & 0o777, pod_info(daemon, pod)["logDirectory"]) == (0o755, str(place))
    container = daemon.run_container(pod, daemon.container_config(image, "echo", "hello"))
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert daemon.status(container).log_path == str(place / "main" / "0.log")
    assert daemon.container_log(container) == "hello"
    daemon.remove_container(container)
    assert (place / "main" / "0.log").exists()
    daemon.remove_pod(pod)
    assert not place.exists()


@pytest.mark.parametrize("has_place", [False, True])
def test_a_container_that_names_no_file_logs_by_its_id(daemon: Daemon, image: str, has_place: bool) -> None:
    pod = daemon.run_pod() if has_place else pod_without_place(daemon)
    config = daemon.container_config(image, "echo", "hello")
    config.log_path = ""
    container = daemon.run_container(pod, config)
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert daemon.container_log(container) == "hello"
    assert daemon.status(container).log_path == f"{pod_info(daemon, pod)['logDirectory']}/{container}.log"


def test_the_place_that_the_client_names_is_made_and_stays(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    place = Path(config.log_directory)
    assert not place.exists()
    pod = daemon.run_pod(config)
    assert place.is_dir()
    container = daemon.run_container(pod, daemon.container_config(image, "echo", "hello"))
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    daemon.remove_pod(pod)
    assert (place / "main" / "0.log").exists()


def test_a_restart_forgets_no_place(daemon: Daemon, image: str) -> None:
    pod = pod_without_place(daemon)
    daemon.restart()
    container = daemon.run_container(pod, daemon.container_config(image, "echo", "hello"))
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert daemon.container_log(container) == "hello"
    daemon.remove_pod(pod)
    assert not (daemon.logs / pod).exists()


def test_a_log_is_reopened_while_its_container_is_being_stopped(daemon: Daemon, image: str) -> None:
    script = "trap 'echo heard' TERM; while :; do echo line; sleep 0.02; done"
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sh", "-c", script))
    path = Path(daemon.status(container).log_path)
    wait_for(lambda: path.exists() and path.read_text())
    stop = daemon.cri.begin("StopContainer", pb.StopContainerRequest(container_id=container, timeout=1000))
    wait_for(lambda: "heard" in path.read_text())
    path.rename(path.with_suffix(".1"))
    daemon.cri.call("ReopenContainerLog", pb.ReopenContainerLogRequest(container_id=container), timeout_s=60)
    wait_for(lambda: "line" in path.read_text())
    assert not stop.done()
    daemon.stop_container(container)
    stop.result()
