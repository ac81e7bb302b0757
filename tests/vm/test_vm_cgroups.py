"""The cgroupfs driver on pure version 2, beside systemd: what is made by path, where monitors sit, and the default."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cri import pb
from support.daemon import Daemon, monitor_of

from criollo.linux.cgroup import of_process


@pytest.fixture(scope="module")
def daemon(daemon_with: Callable[..., Daemon]) -> Daemon:
    return daemon_with(**{"crio.runtime.cgroup_manager": "cgroupfs", "crio.runtime.runtimes.runc.monitor_cgroup": "pod"})


@pytest.fixture(autouse=True)
def _clean(daemon: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(daemon)


def path_of(pid: int) -> str:
    return of_process(pid)[""]


def test_systemd_is_the_default_where_it_runs(daemon: Daemon, tmp_path: Path) -> None:
    empty = tmp_path / "crio.conf"
    empty.write_text("")
    shown = subprocess.run(["crio", "-c", str(empty), "-d", "", "config"], capture_output=True, text=True, check=True)
    assert 'cgroup_manager = "systemd"' in shown.stdout


def test_the_kubelet_is_told_of_the_driver(daemon: Daemon) -> None:
    assert daemon.cri.call("RuntimeConfig").linux.cgroup_driver == pb.CGROUPFS


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_monitors_do_not_count_to_the_pods_memory(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.pod_config()
    config.linux.cgroup_parent = "/criollo-burst/pod1"
    pod = daemon.run_pod(config, handler=handler)
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    assert path_of(daemon.info(container)["pid"]).startswith(f"/criollo-burst/pod1/crio-{container}")
    place = path_of(monitor_of(container))
    assert not place.startswith("/criollo-burst/pod1")
    assert place == (f"/criollo-burst/crio-conmon-{container}" if handler == "runc" else path_of(daemon.pid))
    daemon.remove_pod(pod)
    assert not Path("/sys/fs/cgroup/criollo-burst").exists()


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_an_oom_kill_is_seen(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.run_pod(handler=handler)
    config = daemon.container_config(image, "sh", "-c", "x=a; while :; do x=$x$x; done")
    config.linux.resources.memory_limit_in_bytes = 32 << 20
    container = daemon.run_container(pod, config)
    status = daemon.wait_state(container, pb.CONTAINER_EXITED, limit_s=120)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_limits_reach_the_files_of_version_2(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    config.linux.resources.cpu_quota, config.linux.resources.cpu_period = 50_000, 100_000
    config.linux.resources.unified["memory.high"] = str(48 << 20)
    container = daemon.run_container(daemon.run_pod(), config)
    directory = Path("/sys/fs/cgroup", path_of(daemon.info(container)["pid"]).lstrip("/"))
    read = {name: (directory / name).read_text().strip() for name in ("memory.max", "memory.high", "cpu.max")}
    assert read == {"memory.max": str(64 << 20), "memory.high": str(48 << 20), "cpu.max": "50000 100000"}


def test_a_container_sees_its_own_cgroup_as_the_root(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "cat", "/proc/self/cgroup").strip() == "0::/"
    assert daemon.exec(container, "mkdir", "/sys/fs/cgroup/x").exit_code != 0
