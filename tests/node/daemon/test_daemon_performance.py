"""Annotations of performance profiles: what this kernel has is changed while a container runs, and put back exactly."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb, told
from support.daemon import Daemon, wait_for
from support.registry import Registry
from support.warm import warm_daemon

from criollo.linux.cgroup import Hierarchies, Version, of_process
from criollo.linux.knobs import parse_mask

AFFINITY = Path("/proc/irq/default_smp_affinity")
LATENCY = Path("/sys/devices/system/cpu/cpu1/power/pm_qos_resume_latency_us")
GOVERNOR = Path("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor")
NAMES = ("cpu-load-balancing.crio.io", "irq-load-balancing.crio.io", "cpu-c-states.crio.io", "cpu-freq-governor.crio.io")
QUIET = {"irq-load-balancing.crio.io": "disable", "cpu-c-states.crio.io": "max_latency:17"}

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(
        (os.cpu_count() or 1) < 2 or not AFFINITY.exists() or not LATENCY.exists(), reason="no second CPU to tune"
    ),
]


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("node")
    settings: dict[str, Any] = {f"crio.runtime.runtimes.{name}.allowed_annotations": list(NAMES) for name in ("crun", "runc")}
    settings["crio.runtime.irqbalance_config_file"] = str(place / "irqbalance")
    settings["crio.runtime.irqbalance_config_restore_file"] = str(place / "banned")
    with warm_daemon(place, registry, settings=settings) as running:
        yield running


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Whatever a test does, the node is left as it was."""
    before = {path: path.read_text() for path in (AFFINITY, LATENCY)}
    yield
    after = {path: path.read_text() for path in before}
    for path, text in before.items():
        if after[path] != text:
            path.write_text(text)
    assert after == before


def made(daemon: Daemon, image: str, annotations: dict[str, str], *, handler: str = "crun", cpus: str = "1") -> str:
    pod = daemon.run_pod(daemon.pod_config(annotations=annotations), handler=handler)
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.cpu_shares = 1024
    config.linux.resources.cpuset_cpus = cpus
    return daemon.create(pod, config)


def state() -> tuple[bool, str]:
    """Whether CPU 1 takes new interrupts, and how long it may take to wake."""
    return 1 in parse_mask(AFFINITY.read_text()), LATENCY.read_text().strip()


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_cpus_are_quiet_while_their_container_runs(daemon: Daemon, image: str, handler: str) -> None:
    before = state()
    container = made(daemon, image, QUIET, handler=handler)
    assert state() == before
    daemon.start_container(container)
    assert state() == (False, "17")
    assert daemon.output(container, "cat", "/proc/irq/default_smp_affinity").strip().endswith("1")
    daemon.stop_container(container)
    wait_for(lambda: state() == before)
    daemon.remove_container(container)


def test_an_end_that_no_daemon_saw_is_made_up_for(daemon: Daemon, image: str) -> None:
    before = state()
    container = made(daemon, image, QUIET)
    daemon.start_container(container)
    pid = daemon.info(container)["pid"]
    daemon.kill()
    assert state() == (False, "17")
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    wait_for(lambda: state() == before)
    daemon.remove_container(container)


def test_a_restart_leaves_the_cpus_of_those_that_run(daemon: Daemon, image: str) -> None:
    before = state()
    container = made(daemon, image, QUIET)
    daemon.start_container(container)
    daemon.restart(signal.SIGKILL)
    assert state() == (False, "17")
    daemon.stop_container(container)
    wait_for(lambda: state() == before)
    daemon.remove_container(container)


def test_the_configuration_of_irqbalance_follows(daemon: Daemon, image: str) -> None:
    config = daemon.place / "irqbalance"
    config.write_text("IRQBALANCE_ARGS=\n")
    try:
        container = made(daemon, image, QUIET)
        daemon.start_container(container)
        assert config.read_text().endswith('IRQBALANCE_BANNED_CPUS="00000002"\n')
        daemon.remove_container(container)
        wait_for(lambda: config.read_text() == "IRQBALANCE_ARGS=\n")
        wait_for(lambda: 1 in parse_mask(AFFINITY.read_text()))
    finally:
        config.unlink()


@pytest.mark.skipif(GOVERNOR.exists(), reason="the node has frequencies to govern")
def test_a_node_without_frequencies_refuses_the_start_and_changes_nothing(daemon: Daemon, image: str) -> None:
    before = state()
    container = made(daemon, image, {**QUIET, "cpu-freq-governor.crio.io": "performance"})
    code, text = told(lambda: daemon.start_container(container))
    assert (code, "cpu1/cpufreq/scaling_available_governors" in text) == (grpc.StatusCode.UNIMPLEMENTED, True)
    assert state() == before
    ended = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert ended.reason == "StartError"
    daemon.remove_container(container)


def test_a_start_that_is_refused_changes_nothing(daemon: Daemon, image: str) -> None:
    before = state()
    container = made(daemon, image, QUIET)
    os.kill(daemon.info(container)["pid"], signal.SIGKILL)
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert told(lambda: daemon.start_container(container))[0] is grpc.StatusCode.FAILED_PRECONDITION
    wait_for(lambda: state() == before)
    daemon.remove_container(container)


def test_who_shares_cpus_changes_nothing(daemon: Daemon, image: str) -> None:
    before = state()
    pod = daemon.run_pod(daemon.pod_config(annotations=QUIET))
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.cpu_shares = 512
    container = daemon.run_container(pod, config)
    assert state() == before
    assert "annotation irq-load-balancing.crio.io has no effect" in daemon.log()
    daemon.remove_container(container)


@pytest.mark.skipif(Hierarchies.detect().version is Version.V2, reason="partitions of cgroup v2 are another thing")
@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_the_scheduler_balances_nothing_in_the_containers_cgroup(daemon: Daemon, image: str, handler: str) -> None:
    container = made(daemon, image, {"cpu-load-balancing.crio.io": "disable"}, handler=handler)
    cgroup = of_process(daemon.info(container)["pid"])["cpuset"]
    file = Hierarchies.detect().directory("cpuset", f"{cgroup}/cpuset.sched_load_balance")
    assert file is not None
    assert file.read_text() == "1\n"
    daemon.start_container(container)
    assert file.read_text() == "0\n"
    daemon.remove_container(container)


@pytest.mark.skipif(Hierarchies.detect().version is Version.V2, reason="partitions of cgroup v2 end with their cgroup")
def test_the_cgroup_of_an_ended_container_balances_nothing_either(daemon: Daemon, image: str) -> None:
    container = made(daemon, image, {})
    cgroup = of_process(daemon.info(container)["pid"])["cpuset"]
    file = Hierarchies.detect().directory("cpuset", f"{cgroup}/cpuset.sched_load_balance")
    assert file is not None
    daemon.start_container(container)
    assert file.read_text() == "1\n"
    daemon.stop_container(container)
    wait_for(lambda: not file.exists() or file.read_text() == "0\n")
    daemon.remove_container(container)
