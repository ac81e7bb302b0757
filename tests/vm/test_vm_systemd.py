"""The systemd cgroup driver: slices, scopes, and nothing of them left."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cri import pb
from support.daemon import Daemon, monitor_of, wait_for

from criollo.linux.cgroup import Hierarchies, Version, of_process

GRACE = "io.kubernetes.pod.terminationGracePeriod"


@pytest.fixture(scope="module")
def daemon(daemon_with: Callable[..., Daemon]) -> Daemon:
    return daemon_with(
        **{
            "crio.runtime.cgroup_manager": "systemd",
            "crio.runtime.runtimes.runc.monitor_cgroup": "pod",
            "crio.runtime.runtimes.apart.runtime_path": "/usr/bin/crun",
            "crio.runtime.runtimes.apart.runtime_root": "/run/apart",
            "crio.runtime.runtimes.apart.monitor_cgroup": "monitors.slice",
        }
    )


@pytest.fixture(autouse=True)
def _clean(daemon: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(daemon)


def units() -> str:
    """Units of ours that systemd knows, dead and failed ones too."""
    argv = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "crio-*", "kubepods*", "one*"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def shown(unit: str, name: str) -> str:
    argv = ["systemctl", "show", "--value", "-p", name, unit]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def path_of(pid: int) -> str:
    return of_process(pid)[""]


def limits_of(path: str) -> dict[str, int]:
    """Bytes and microseconds that the kernel holds a cgroup to, in the files of either version."""
    hierarchies, below = Hierarchies.detect(), path.lstrip("/")
    if hierarchies.version is Version.V2:
        place = Path(f"{hierarchies.unified}/{below}")
        memory, quota, period = (place / "memory.max").read_text(), *(place / "cpu.max").read_text().split()
    else:
        memory = Path(f"{hierarchies.controllers['memory']}/{below}/memory.limit_in_bytes").read_text()
        cpu = Path(f"{hierarchies.controllers['cpu']}/{below}")
        quota, period = ((cpu / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return {"memory": int(memory), "quota": -1 if quota == "max" else int(quota), "period": int(period)}


def run(daemon: Daemon, image: str, parent: str = "", *, handler: str = "", **fields: Any) -> tuple[str, str]:
    config = daemon.pod_config(**fields)
    config.linux.cgroup_parent = parent
    pod = daemon.run_pod(config, handler=handler)
    return pod, daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))


def test_the_kubelet_is_told_of_the_driver(daemon: Daemon) -> None:
    assert daemon.cri.call("RuntimeConfig").linux.cgroup_driver == pb.SYSTEMD


def test_containers_and_monitors_have_scopes(daemon: Daemon, image: str) -> None:
    pod, container = run(daemon, image, "kubepods-burstable-pod1.slice")
    below = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
    assert path_of(daemon.info(container)["pid"]).startswith(f"{below}/crio-{container}.scope")
    assert shown(f"crio-{container}.scope", "ActiveState") == "active"
    monitor = f"crio-conmon-{container}.scope"
    assert path_of(monitor_of(container)) == shown(monitor, "ControlGroup") == f"/system.slice/{monitor}"
    daemon.remove_pod(pod)
    assert units() == ""


@pytest.mark.parametrize(
    ("handler", "below"),
    [("runc", "/one.slice/one-pod.slice"), ("apart", "/monitors.slice")],
    ids=["in the pod, with runc", "in a slice"],
)
def test_monitors_run_where_their_handler_says(daemon: Daemon, image: str, handler: str, below: str) -> None:
    pod, container = run(daemon, image, "one-pod.slice", handler=handler)
    assert path_of(monitor_of(container)) == f"{below}/crio-conmon-{container}.scope"
    assert path_of(daemon.info(container)["pid"]).startswith(f"/one.slice/one-pod.slice/crio-{container}.scope")
    daemon.remove_pod(pod)
    assert units() == ""


def test_a_slice_of_the_kubelet_stays(daemon: Daemon, image: str) -> None:
    subprocess.run(["systemctl", "start", "kubepods-pod7.slice"], check=True)
    try:
        pod, _ = run(daemon, image, "kubepods-pod7.slice")
        daemon.remove_pod(pod)
        assert shown("kubepods-pod7.slice", "ActiveState") == "active"
    finally:
        subprocess.run(["systemctl", "stop", "kubepods.slice"], check=True)
        Hierarchies.detect().remove("/kubepods.slice")  # the kubelet's part on version 1: what systemd does not use


def test_a_pod_without_a_parent_has_a_slice_of_its_own(daemon: Daemon, image: str) -> None:
    pod, container = run(daemon, image)
    assert path_of(daemon.info(container)["pid"]).startswith(f"/crio.slice/crio-pod{pod}.slice/crio-{container}.scope")
    assert f"crio-pod{pod}.slice" in units()
    daemon.remove_pod(pod)
    assert units() == ""


def test_a_path_is_no_slice(daemon: Daemon) -> None:
    config = daemon.pod_config()
    config.linux.cgroup_parent = "/kubepods/pod1"
    with pytest.raises(Exception, match=r"cgroup_parent.*slice"):
        daemon.run_pod(config)


def test_systemd_waits_for_a_container_as_long_as_its_pod_asks(daemon: Daemon, image: str) -> None:
    _, container = run(daemon, image, annotations={GRACE: "75"})
    assert shown(f"crio-{container}.scope", "TimeoutStopUSec") == "1min 15s"
    assert shown(f"crio-{container}.scope", "CollectMode") == "inactive-or-failed"


def test_a_pod_cannot_write_properties_of_units(daemon: Daemon, image: str) -> None:
    _, container = run(daemon, image, annotations={GRACE: "1\nUser=root", "org.systemd.property.Description": "'mine'"})
    assert shown(f"crio-{container}.scope", "TimeoutStopUSec") == "1min 30s"
    assert "mine" not in shown(f"crio-{container}.scope", "Description")


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_a_changed_limit_outlives_a_reload_of_systemd(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    path = path_of(daemon.info(container)["pid"])
    assert limits_of(path)["memory"] == 64 << 20
    changed = pb.LinuxContainerResources(memory_limit_in_bytes=96 << 20)
    daemon.cri.call("UpdateContainerResources", pb.UpdateContainerResourcesRequest(container_id=container, linux=changed))
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert limits_of(path)["memory"] == 96 << 20


def test_a_resized_pod_keeps_its_size_when_systemd_reloads(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    wanted = pb.LinuxContainerResources(memory_limit_in_bytes=128 << 20, cpu_quota=50_000, cpu_period=100_000)
    daemon.cri.call("UpdatePodSandboxResources", pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=wanted))
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert shown(f"crio-pod{pod}.slice", "MemoryMax") == str(128 << 20)
    assert limits_of(f"/crio.slice/crio-pod{pod}.slice") == {"memory": 128 << 20, "quota": 50_000, "period": 100_000}


def test_statistics_are_of_the_whole_scope(daemon: Daemon, image: str) -> None:
    pod, container = run(daemon, image)
    stats = daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats
    assert stats.memory.usage_bytes.value > 0
    assert stats.cpu.usage_core_nano_seconds.value > 0
    linux = daemon.cri.call("PodSandboxStats", pb.PodSandboxStatsRequest(pod_sandbox_id=pod)).stats.linux
    assert linux.process.process_count.value == 1
    assert linux.memory.usage_bytes.value >= stats.memory.usage_bytes.value


def test_an_infra_container_has_a_scope_in_its_pods_slice(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    pod = daemon.run_pod(config)
    assert shown(f"crio-{pod}.scope", "ControlGroup") == f"/crio.slice/crio-pod{pod}.slice/crio-{pod}.scope"
    daemon.remove_pod(pod)
    assert units() == ""


@pytest.mark.parametrize("handler", ["crun", "runc"])  # the monitors of runc count to the pod
def test_oom_kills_are_seen_though_systemd_takes_the_scope_away(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.run_pod(handler=handler)
    for number in range(3):
        config = daemon.container_config(image, "sh", "-c", "x=a; while :; do x=$x$x; done", name=f"c{number}")
        config.linux.resources.memory_limit_in_bytes = 32 << 20
        container = daemon.run_container(pod, config)
        status = daemon.wait_state(container, pb.CONTAINER_EXITED, limit_s=120)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")
    killed = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="killed"))
    os.kill(daemon.info(killed)["pid"], signal.SIGKILL)
    assert daemon.wait_state(killed, pb.CONTAINER_EXITED).reason == "Error"
    daemon.remove_pod(pod)
    assert units() == ""


def test_containers_that_end_leave_no_units(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    for number in range(10):
        command = ("sh", "-c", f"exit {number}") if number % 2 else ("sleep", "1000")
        container = daemon.run_container(pod, daemon.container_config(image, *command, name=f"c{number}"))
        if number % 2:
            daemon.wait_state(container, pb.CONTAINER_EXITED)
        else:
            os.kill(daemon.info(container)["pid"], signal.SIGKILL)
        daemon.remove_container(container)
        assert container not in units()
    failed = subprocess.run(["systemctl", "--failed", "--plain", "--no-legend"], capture_output=True, text=True, check=True)
    assert "crio" not in failed.stdout


def test_a_restarted_daemon_adopts_what_runs(daemon: Daemon, image: str) -> None:
    pod, container = run(daemon, image, "kubepods-pod3.slice")
    pid = daemon.info(container)["pid"]
    daemon.restart(signal.SIGKILL)
    assert daemon.info(container)["pid"] == pid
    assert daemon.output(container, "echo", "here").strip() == "here"
    daemon.stop_container(container)
    assert daemon.status(container).exit_code == 137
    daemon.remove_pod(pod)
    assert units() == ""


def test_a_bus_that_starts_anew_is_joined_again(daemon: Daemon, image: str) -> None:
    pod, _ = run(daemon, image)
    subprocess.run(["systemctl", "restart", "dbus.service"], check=True, timeout=60)
    wait_for(lambda: shown("dbus.service", "ActiveState") == "active")
    daemon.remove_pod(pod)
    pod, _ = run(daemon, image)
    daemon.remove_pod(pod)
    assert units() == ""


def test_without_a_bus_pods_fail_with_the_reason_and_nothing_is_forgotten(daemon: Daemon, image: str) -> None:
    pod, _ = run(daemon, image)
    subprocess.run(["systemctl", "stop", "dbus.socket", "dbus.service"], check=True, timeout=60)
    try:
        with pytest.raises(Exception, match=r"systemd is not reached by D-Bus .*start dbus"):
            daemon.run_pod()
        with pytest.raises(Exception, match="D-Bus"):
            daemon.remove_pod(pod)
        assert pod in [each.id for each in daemon.cri.call("ListPodSandbox").items]
    finally:
        subprocess.run(["systemctl", "start", "dbus.socket"], check=True, timeout=60)
    daemon.remove_pod(pod)
    wait_for(lambda: units() == "")
