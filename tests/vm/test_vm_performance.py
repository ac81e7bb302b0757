"""CPUs of their own on cgroup version 2: an isolated partition while the container runs, where the kernel has such."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from support.cri import told
from support.daemon import Daemon, wait_for

from criollo.linux.cgroup import of_process

ROOT = Path("/sys/fs/cgroup")
NAME = "cpu-load-balancing.crio.io"
OTHERS = ("irq-load-balancing.crio.io", "cpu-c-states.crio.io")
AFFINITY = Path("/proc/irq/default_smp_affinity")

pytestmark = pytest.mark.skipif(not (ROOT / "cgroup.controllers").exists(), reason="the node has cgroup version 1")


@pytest.fixture(scope="module")
def running(daemon_with: Callable[..., Daemon]) -> Daemon:
    return daemon_with(**{"crio.runtime.runtimes.crun.allowed_annotations": [NAME, *OTHERS]})


@pytest.fixture(autouse=True)
def _clean(running: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(running)


@pytest.fixture
def container(running: Daemon, image: str) -> str:
    return made(running, image, {NAME: "disable"})


def made(running: Daemon, image: str, annotations: dict[str, str]) -> str:
    config = running.container_config(image, "sleep", "10000")
    config.linux.resources.cpu_shares = 1024
    config.linux.resources.cpuset_cpus = "1"
    return running.create(running.run_pod(running.pod_config(annotations=annotations), handler="crun"), config)


def place(running: Daemon, container: str) -> Path:
    """The cgroup that has the container's id."""
    found = ROOT / of_process(running.info(container)["pid"])[""].lstrip("/")
    return found if container in found.name else found.parent


def test_the_containers_cgroup_is_a_partition_while_it_runs(running: Daemon, container: str) -> None:
    cgroup = place(running, container)
    if not (cgroup / "cpuset.cpus.exclusive").exists():
        code, text = told(lambda: running.start_container(container))
        assert (code, "cpuset.cpus.exclusive; Linux has it from 6.7 on" in text) == (grpc.StatusCode.UNIMPLEMENTED, True)
        return
    above = cgroup.parent / "cpuset.cpus.exclusive"
    before = above.read_text()
    running.start_container(container)
    assert (cgroup / "cpuset.cpus.partition").read_text() == "isolated\n"
    assert above.read_text() == "1\n"
    assert running.output(container, "cat", "/proc/self/status").count("Cpus_allowed_list:\t1\n") == 1
    running.stop_container(container)
    wait_for(lambda: above.read_text() == before)


def test_interrupts_and_sleep_follow_here_too(running: Daemon, image: str) -> None:
    latency = Path("/sys/devices/system/cpu/cpu1/power/pm_qos_resume_latency_us")
    before = AFFINITY.read_text(), latency.read_text()
    container = made(running, image, {OTHERS[0]: "disable", OTHERS[1]: "max_latency:23"})
    running.start_container(container)
    assert (int(AFFINITY.read_text().replace(",", ""), 16) & 2, latency.read_text()) == (0, "23\n")
    running.stop_container(container)
    wait_for(lambda: (AFFINITY.read_text(), latency.read_text()) == before)
