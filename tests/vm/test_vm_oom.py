"""Kills for memory on version 2, where `memory.events` tells of them: of one process, and of the container's first."""

import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cri import Cri, pb
from support.daemon import CRIO, Daemon, wait_for

from criollo.linux.cgroup import of_process

SLOW_S = 120  # an emulated guest
DIES = "tail /dev/zero"
both = pytest.mark.parametrize("handler", ["crun", "runc"])  # crun's processes are in a subgroup of the scope, runc's are not


@pytest.fixture(scope="module", params=["systemd", "cgroupfs"])
def daemon(daemon_with: Callable[..., Daemon], request: pytest.FixtureRequest) -> Daemon:
    return daemon_with(
        **{
            "crio.runtime.cgroup_manager": request.param,
            "crio.runtime.enable_pod_events": True,
            "crio.stats.included_pod_metrics": ["oom"],
            "crio.metrics.enable_metrics": True,
            "crio.metrics.metrics_host": "localhost",
            "crio.metrics.metrics_port": 0,
        }
    )


@pytest.fixture(autouse=True)
def _clean(daemon: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(daemon)


def run(daemon: Daemon, image: str, handler: str, script: str) -> str:
    config = daemon.container_config(image, "sh", "-c", script)
    config.linux.resources.memory_limit_in_bytes = 16 << 20
    return daemon.run_container(daemon.run_pod(handler=handler), config)


def counted(daemon: Daemon) -> int:
    """Containers that Prometheus is told of."""
    url = re.findall(r'"serving metrics" url=(\S+)', daemon.log())[-1]
    with urllib.request.urlopen(url, timeout=SLOW_S) as answer:
        (found,) = re.findall(rb"^container_runtime_crio_containers_oom_total (\d+)", answer.read(), re.MULTILINE)
    return int(found)


def kills_told(daemon: Daemon) -> int:
    """What the only container's metric for kubelet says."""
    (pod,) = daemon.cri.call("ListPodSandboxMetrics").pod_metrics
    values = [each.value.value for each in pod.container_metrics[0].metrics if each.name == "container_oom_events_total"]
    return int(sum(values))


@both
def test_kill_of_one_process_is_told_while_its_container_lives(daemon: Daemon, image: str, handler: str) -> None:
    before = counted(daemon)
    container = run(daemon, image, handler, "until [ -e /go ]; do sleep 0.2; done; exit 0")
    place = Path(f"/sys/fs/cgroup{of_process(daemon.info(container)['pid'])['']}")
    assert "oom_kill 0\n" in (place / "memory.events").read_text()
    assert daemon.exec(container, "sh", "-c", f"{DIES}; exit 0", timeout=SLOW_S).exit_code == 0
    assert "oom_kill 1\n" in (place / "memory.events").read_text()
    wait_for(lambda: counted(daemon) == before + 1, SLOW_S)
    assert kills_told(daemon) == 1
    assert daemon.status(container).state == pb.CONTAINER_RUNNING
    crio = [str(CRIO), "-c", str(daemon.place / "crio.conf"), "-d", "", "explain", container]
    assert "OOM" in subprocess.run(crio, check=True, capture_output=True, text=True, timeout=SLOW_S).stdout
    daemon.exec(container, "touch", "/go")
    ended = daemon.wait_state(container, pb.CONTAINER_EXITED, SLOW_S)
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert counted(daemon) == before + 1


@pytest.fixture
def events(daemon: Daemon) -> Iterator[Any]:
    client = Cri(daemon.socket)
    call = client.open("GetContainerEvents", timeout_s=3 * SLOW_S)
    daemon.remove_pod(daemon.run_pod())
    next(call)  # the server has heard of the client
    yield call
    call.cancel()
    client.close()


@both
def test_kill_of_the_first_process_is_the_reason_of_the_exit(daemon: Daemon, image: str, handler: str, events: Any) -> None:
    before = counted(daemon)
    container = run(daemon, image, handler, f"{DIES}; until [ -e /go ]; do sleep 0.2; done; exec {DIES}")
    wait_for(lambda: counted(daemon) == before + 1, SLOW_S)
    daemon.exec(container, "touch", "/go")
    last = next(e for e in events if e.container_id == container and e.container_event_type == pb.CONTAINER_STOPPED_EVENT)
    assert [(each.exit_code, each.reason) for each in last.containers_statuses] == [(137, "OOMKilled")]
    assert counted(daemon) == before + 1, "a container counts once"
