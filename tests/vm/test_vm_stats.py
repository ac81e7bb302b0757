"""Statistics and metrics on version 2 with systemd's scopes: crun's has a subgroup, runc's has none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for

from criollo.linux.cgroup import of_process

MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(daemon_with: Callable[..., Daemon]) -> Daemon:
    return daemon_with(**{"crio.runtime.cgroup_manager": "systemd", "crio.stats.included_pod_metrics": ["all"]})


@pytest.fixture(autouse=True)
def _clean(daemon: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(daemon)


def pod_of(daemon: Daemon, pod: str) -> Any:
    return daemon.cri.call("PodSandboxStats", pb.PodSandboxStatsRequest(pod_sandbox_id=pod)).stats


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_counters_are_those_of_the_container(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.run_pod(handler=handler)
    config = daemon.container_config(image, "sh", "-c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=20; sleep 1000")
    config.linux.resources.memory_limit_in_bytes = 64 * MIB
    container = daemon.run_container(pod, config)
    wait_for(lambda: pod_of(daemon, pod).linux.memory.usage_bytes.value >= 20 * MIB, 60)
    stats = daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats
    place = Path("/sys/fs/cgroup", of_process(daemon.info(container)["pid"])[""].lstrip("/"))
    assert (place.name == "container") == (handler == "crun")
    assert stats.cpu.usage_core_nano_seconds.value > 0
    assert 20 * MIB <= stats.memory.usage_bytes.value <= 64 * MIB
    assert stats.memory.available_bytes.value == 64 * MIB - stats.memory.working_set_bytes.value
    assert stats.memory.rss_bytes.value > 0
    assert stats.memory.page_faults.value > 0
    assert stats.swap.HasField("swap_usage_bytes")
    assert stats.cpu.HasField("psi") == (place / "cpu.pressure").exists()
    assert pod_of(daemon, pod).linux.process.process_count.value >= 1


def waited_us(place: Path, resource: str) -> tuple[int, int]:
    """What the kernel says some, and all, tasks of a cgroup have waited so far."""
    lines = dict(line.split(" ", 1) for line in (place / f"{resource}.pressure").read_text().splitlines())
    return tuple(int(lines[kind].rpartition("=")[2]) for kind in ("some", "full"))  # type: ignore[return-value]


def metrics_of(daemon: Daemon) -> dict[str, int]:
    """Metrics of the only container, by name."""
    (found,) = daemon.cri.call("ListPodSandboxMetrics").pod_metrics
    return {each.name.removeprefix("container_"): each.value.value for each in found.container_metrics[0].metrics}


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_a_throttled_container_is_told_as_throttled_and_as_waiting(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "while :; do :; done")
    config.linux.resources.cpu_quota, config.linux.resources.cpu_period = 10_000, 100_000
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    place = Path("/sys/fs/cgroup", of_process(daemon.info(container)["pid"])[""].lstrip("/"))
    wait_for(lambda: waited_us(place, "cpu")[0] > 1_000_000 and metrics_of(daemon)["cpu_cfs_throttled_seconds_total"] >= 1, 60)
    wait_for(lambda: "some avg10=0.00" not in (place / "cpu.pressure").read_text(), 60)  # counted every two seconds
    low = waited_us(place, "cpu")
    psi = daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats.cpu.psi
    metrics = metrics_of(daemon)
    high = waited_us(place, "cpu")
    assert low[0] <= psi.Some.Total <= high[0]
    assert low[1] <= psi.Full.Total <= high[1]
    assert psi.Some.Avg10 > 0
    assert low[0] // 1_000_000 <= metrics["pressure_cpu_waiting_seconds_total"] <= high[0] // 1_000_000
    assert 0 < metrics["cpu_cfs_throttled_periods_total"] <= metrics["cpu_cfs_periods_total"]


def test_who_waits_for_memory_is_told(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "while :; do cat /bin/busybox > /tmp/x; tail -c 20m /dev/zero; done")
    config.linux.resources.memory_limit_in_bytes = 64 * MIB
    config.linux.resources.unified["memory.high"] = str(8 * MIB)
    container = daemon.run_container(daemon.run_pod(), config)
    place = Path("/sys/fs/cgroup", of_process(daemon.info(container)["pid"])[""].lstrip("/"))
    wait_for(lambda: waited_us(place, "memory")[0] > 0, 60)
    low = waited_us(place, "memory")
    psi = daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats.memory.psi
    high = waited_us(place, "memory")
    assert low[0] <= psi.Some.Total <= high[0]
    assert low[1] <= psi.Full.Total <= high[1]


def test_metrics_are_told_of_version_2(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    (found,) = daemon.cri.call("ListPodSandboxMetrics").pod_metrics
    names = {metric.name.removeprefix("container_") for metric in found.container_metrics[0].metrics}
    wanted = {
        "last_seen",
        "cpu_usage_seconds_total",
        "cpu_user_seconds_total",
        "memory_working_set_bytes",
        "memory_kernel_usage",
        "memory_failures_total",
        "oom_events_total",
        "processes",
        "threads",
        "start_time_seconds",
    }
    assert wanted <= names
