"""Things that hang: each costs one worker and its own request, is named, and leaves no name taken."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
from support.cri import pb, told
from support.daemon import Daemon, wait_for
from support.dead_mount import dead_mount, needs_fuse
from support.footprint import footprint, left
from support.hooked import Hooks
from support.rows import reboot, rows

pytestmark = pytest.mark.node

KNOBS = {"sweep_s": 0.3, "monitor_s": 1, "plugin_s": 2, "create_limit_s": 4, "verb_limit_s": 4, "probe_s": 2, "recover_s": 0.5}


@needs_fuse
def test_repeated_create_joins_the_one_that_hangs_and_the_name_is_free_afterwards(
    daemon: Daemon, image: str, tmp_path: Path
) -> None:
    pod = daemon.run_pod()
    config = daemon.container_config(image, "sleep", "1000", name="again")
    config.mounts.add(container_path="/v", host_path=str(tmp_path / "dead/below"))
    request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
    with dead_mount(tmp_path / "dead"):
        calls = [daemon.cri.begin("CreateContainer", request) for _ in range(3)]
        wait_for(lambda: probing(daemon, tmp_path) >= 1)
        assert probing(daemon, tmp_path) == 1
        for call in calls:
            code, text = told(call.result)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert str(tmp_path / "dead/below") in text
    container = daemon.run_container(pod, config)
    assert daemon.output(container, "ls", "/v") == ""


def probing(daemon: Daemon, place: Path) -> int:
    """How many processes of the daemon's wait in the kernel for a file system that does not answer."""
    count = 0
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if "fuse" in Path(f"/proc/{entry}/wchan").read_text() and descends(int(entry), daemon.pid):
                count += 1
    return count


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


@needs_fuse
def test_volume_that_dies_under_a_container_keeps_nobody(daemon: Daemon, image: str, tmp_path: Path) -> None:
    """The mount is there before the container is made, and answers no more afterwards: stop, remove and a restart go on."""
    volume = tmp_path / "volume"
    volume.mkdir()
    pod = daemon.run_pod()
    config = daemon.container_config(image, "sleep", "1000")
    mounted = config.mounts.add(container_path="/v", host_path=str(volume))
    mounted.propagation = pb.PROPAGATION_HOST_TO_CONTAINER
    subprocess.run(["mount", "--bind", str(volume), str(volume)], check=True)
    subprocess.run(["mount", "--make-shared", str(volume)], check=True)
    try:
        (volume / "below").mkdir()
        container = daemon.run_container(pod, config)
        with dead_mount(volume / "below"):
            daemon.restart(signal.SIGKILL)
            assert daemon.status(container).state == pb.CONTAINER_RUNNING
            assert daemon.output(container, "echo", "there") == "there\n"
            assert daemon.cri.call("ListContainerStats").stats
            daemon.stop_container(container)
            daemon.remove_container(container)
            daemon.remove_pod(pod)
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


def test_plugin_that_hangs_on_del_keeps_no_pod_and_no_address(daemon: Daemon, hooks: Hooks) -> None:
    before, config = footprint(daemon), daemon.pod_config("del")
    pod = daemon.run_pod(config)
    with hooks.script("DEL", "exec sleep 1000"):
        daemon.stop_pod(pod)
        other = daemon.run_pod()
    daemon.remove_pod(other)
    daemon.remove_pod(pod)
    wait_for(lambda: footprint(daemon)["addresses"] == before["addresses"])
    daemon.remove_pod(daemon.run_pod(config))


def test_plugin_that_hangs_on_add_leaves_the_pods_name_free(daemon: Daemon, hooks: Hooks) -> None:
    config = daemon.pod_config("add")
    with hooks.script("ADD", "exec sleep 1000"):
        request = pb.RunPodSandboxRequest(config=config)
        calls = [daemon.cri.begin("RunPodSandbox", request) for _ in range(2)]
        for call in calls:
            assert told(call.result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    daemon.run_pod(config)


@pytest.mark.parametrize("verb", ["state", "delete"])
def test_runtime_that_hangs_does_not_keep_a_daemon_from_starting(daemon: Daemon, hooks: Hooks, image: str, verb: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    with hooks.script(verb, "exec sleep 1000"):
        daemon.restart(signal.SIGKILL)
        assert daemon.status(container).state == pb.CONTAINER_RUNNING
        daemon.run_pod()
    daemon.remove_pod(pod)


def test_runtime_that_hangs_in_delete_keeps_no_other_from_recovery(daemon: Daemon, hooks: Hooks, image: str) -> None:
    stuck, others = daemon.run_pod(handler="hooked"), [daemon.run_pod() for _ in range(2)]
    for pod in (stuck, *others):
        daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    daemon.stop()
    reboot(daemon)
    with hooks.script("delete", "exec sleep 1000"):
        daemon.start()
        assert "going on without it" in daemon.log()
        wait_for(lambda: rows(daemon, "pod") == {stuck: "REMOVING"})
        daemon.remove_pod(daemon.run_pod())
    wait_for(lambda: rows(daemon, "pod") == {})


def test_monitor_that_hangs_in_create_is_ended_and_named(daemon: Daemon, hooks: Hooks, image: str) -> None:
    """A runtime that stops the monitor above it: nobody answers any more."""
    pod, config = daemon.run_pod(handler="hooked"), daemon.container_config(image, "sleep", "1000")
    before = footprint(daemon)
    with hooks.script("create", "kill -STOP $PPID; exec sleep 1000"):
        code, text = told(lambda: daemon.create(pod, config))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "container" in text
    assert left(daemon, before) == {}
    daemon.start_container(daemon.create(pod, config))


@needs_fuse
@pytest.mark.parametrize("kind", ["device", "directory of devices", "seccomp profile"])
def test_what_hangs_beside_volumes_costs_its_create_only(daemon: Daemon, image: str, tmp_path: Path, kind: str) -> None:
    """More of them than the daemon has threads for files; the name is free afterwards, and the pod goes."""
    pod = daemon.run_pod()
    dead = str(tmp_path / "dead" if kind == "directory of devices" else tmp_path / "dead/below")
    configs = []
    for number in range(10):
        config = daemon.container_config(image, "sleep", "1000", name=f"hangs{number}")
        if kind == "seccomp profile":
            profile = config.linux.security_context.seccomp
            profile.profile_type, profile.localhost_ref = pb.SecurityProfile.Localhost, dead
        else:
            config.devices.add(container_path="/dev/x", host_path=dead, permissions="rw")
        configs.append(config)
    with dead_mount(tmp_path / "dead"):
        requests = (
            pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
            for config in configs
        )
        calls = [daemon.cri.begin("CreateContainer", request) for request in requests]
        for call in calls:
            code, text = told(call.result)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert dead in text
        daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="hangs0"))
        daemon.stop_pod(pod)
