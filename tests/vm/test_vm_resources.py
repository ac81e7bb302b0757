"""Limits on pure cgroup v2: met from inside, changed while a container runs, refused and put back. With either driver."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for

from criollo.linux.cgroup import driver_of, of_process, pod_cgroup

MIB = 1 << 20
OWN = "/sys/fs/cgroup"  # as a container sees it
DISK = "vda"  # the guest's
CLASS = "blockio.resources.beta.kubernetes.io/pod"


@pytest.fixture(scope="module")
def daemon(daemon_with: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    classes = tmp_path_factory.mktemp("classes") / "blockio.yaml"
    classes.write_text(f"Classes:\n  Slow: [{{Devices: [/dev/{DISK}], ThrottleWriteBps: 1Mi}}]\n  Light: [{{Weight: 50}}]\n")
    return daemon_with(
        **{
            "crio.runtime.blockio_config_file": str(classes),
            "crio.runtime.pids_limit": 60,
            "crio.runtime.runtimes.crun.allowed_annotations": ["unified-cgroup.crio.io"],
        }
    )


@pytest.fixture(autouse=True)
def _clean(daemon: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(daemon)


def run(daemon: Daemon, image: str, *command: str, annotations: dict[str, str] | None = None, **resources: Any) -> str:
    config = daemon.container_config(image, *(command or ("sleep", "1000")))
    config.linux.resources.MergeFrom(pb.LinuxContainerResources(**resources))
    return daemon.run_container(daemon.run_pod(daemon.pod_config(annotations=annotations or {})), config)


def update(daemon: Daemon, container: str, **resources: Any) -> None:
    changed = pb.LinuxContainerResources(**resources)
    daemon.cri.call("UpdateContainerResources", pb.UpdateContainerResourcesRequest(container_id=container, linux=changed))


def held(daemon: Daemon, container: str, name: str) -> str:
    """A file of the container's cgroup, from the host; in a scope of systemd that is a subgroup."""
    path = of_process(daemon.info(container)["pid"])[""]
    return Path(f"/sys/fs/cgroup{path}/{name}").read_text().strip()


def test_a_container_sees_its_own_cgroup_alone_and_cannot_write_it(daemon: Daemon, image: str) -> None:
    container = run(daemon, image, memory_limit_in_bytes=64 * MIB)
    assert daemon.output(container, "cat", "/proc/self/cgroup").strip() == "0::/"
    assert int(daemon.output(container, "cat", f"{OWN}/memory.max")) == 64 * MIB
    assert b"Read-only" in daemon.exec(container, "sh", "-c", f"echo max > {OWN}/memory.max").stderr


def test_limits_hold(daemon: Daemon, image: str) -> None:
    container = run(daemon, image)
    assert b"can't fork" in daemon.exec(container, "sh", "-c", "for i in $(seq 80); do sleep 100 & done").stderr
    killed = run(daemon, image, "sh", "-c", "tail /dev/zero", memory_limit_in_bytes=16 * MIB)
    status = daemon.wait_state(killed, pb.CONTAINER_EXITED, limit_s=120)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_every_limit_changes_while_the_container_runs(daemon: Daemon, image: str) -> None:
    container = run(daemon, image, memory_limit_in_bytes=64 * MIB, cpu_quota=50_000, cpu_period=100_000, cpu_shares=1024)
    update(
        daemon,
        container,
        memory_limit_in_bytes=96 * MIB,
        cpu_quota=20_000,
        cpu_shares=512,
        cpuset_cpus="0",
        unified={"memory.high": str(80 * MIB), "memory.low": "0"},
    )
    names = ("memory.max", "cpu.max", "memory.high", "cpuset.cpus")
    assert [held(daemon, container, name) for name in names] == [str(96 * MIB), "20000 100000", str(80 * MIB), "0"]
    assert int(held(daemon, container, "cpu.weight")) < 39
    status = daemon.output(container, "cat", "/proc/self/status")
    assert "Cpus_allowed_list:\t0\n" in status
    update(daemon, container, memory_limit_in_bytes=48 * MIB, unified={"memory.high": "max"})
    assert [held(daemon, container, name) for name in names[::2]] == [str(48 * MIB), "max"]
    told = daemon.status(container).resources.linux
    assert (told.memory_limit_in_bytes, dict(told.unified)) == (48 * MIB, {"memory.high": "max", "memory.low": "0"})


def test_a_limit_below_what_is_used_is_refused_and_nobody_is_killed(daemon: Daemon, image: str) -> None:
    fill = "dd if=/dev/zero of=/dev/shm/used bs=1M count=30; sleep 1000"
    container = run(daemon, image, "sh", "-c", fill, memory_limit_in_bytes=64 * MIB)
    wait_for(lambda: int(held(daemon, container, "memory.current")) > 30 * MIB, 60)
    with pytest.raises(grpc.RpcError) as refused:
        update(daemon, container, memory_limit_in_bytes=16 * MIB, cpu_shares=77)
    assert f"cannot decrease memory limit to {16 * MIB} bytes: current usage is " in str(refused.value.details())
    assert held(daemon, container, "memory.max") == str(64 * MIB)
    assert daemon.status(container).state == pb.CONTAINER_RUNNING


def test_a_change_that_fails_leaves_everything_as_it_was(daemon: Daemon, image: str) -> None:
    container = run(daemon, image, memory_limit_in_bytes=64 * MIB, cpu_shares=1024)
    names = ("memory.max", "cpu.weight", "cpu.max", "memory.high", "cpuset.cpus")
    before = [held(daemon, container, name) for name in names]
    with pytest.raises(grpc.RpcError):
        update(daemon, container, memory_limit_in_bytes=32 * MIB, cpu_shares=5, unified={"memory.high": "nonsense"})
    with pytest.raises(grpc.RpcError):
        update(daemon, container, memory_limit_in_bytes=32 * MIB, cpu_quota=5000, cpu_period=10_000, cpuset_cpus="999")
    assert [held(daemon, container, name) for name in names] == before
    assert daemon.status(container).resources.linux.memory_limit_in_bytes == 64 * MIB


def test_raw_files_come_from_the_pods_annotation(daemon: Daemon, image: str) -> None:
    high = base64.b64encode(str(40 * MIB).encode()).decode()
    wish = {"unified-cgroup.crio.io/main": f"memory.high={high};pids.max=33"}
    container = run(daemon, image, annotations=wish)
    assert int(daemon.output(container, "cat", f"{OWN}/memory.high")) == 40 * MIB
    assert daemon.output(container, "cat", f"{OWN}/pids.max").strip() == "33"


def test_a_pod_of_ours_is_resized(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    for size in (64, 128, 32):
        request = pb.UpdatePodSandboxResourcesRequest(
            pod_sandbox_id=pod,
            overhead=pb.LinuxContainerResources(memory_limit_in_bytes=8 * MIB),
            resources=pb.LinuxContainerResources(memory_limit_in_bytes=size * MIB, cpu_quota=10_000 * size, cpu_period=100_000),
        )
        daemon.cri.call("UpdatePodSandboxResources", request)
        answer = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True))
        told = json.loads(answer.info["info"])
        assert told["linuxResources"]["memory_limit_in_bytes"] == size * MIB
        group = Path(f"/sys/fs/cgroup{pod_cgroup(driver_of(told['cgroupParent']), told['cgroupParent']).path}")
        assert (group / "memory.max").read_text().strip() == str((size + 8) * MIB)
        assert (group / "cpu.max").read_text().strip() == f"{10_000 * size} 100000"
    assert daemon.status(container).state == pb.CONTAINER_RUNNING


def test_a_class_of_block_io_holds_back_who_writes(daemon: Daemon, image: str) -> None:
    place = Path(tempfile.mkdtemp(prefix="criollo-", dir="/var/tmp"))  # on the disk
    for handler in ("crun", "runc"):
        config = daemon.container_config(image, "sleep", "1000")
        config.mounts.add(container_path="/v", host_path=str(place))
        pod = daemon.run_pod(daemon.pod_config(annotations={CLASS: "Slow"}), handler=handler)
        container = daemon.run_container(pod, config)
        number = Path(f"/sys/class/block/{DISK}/dev").read_text().strip()
        assert daemon.output(container, "cat", f"{OWN}/io.max").split() == [
            *(number, "rbps=max", f"wbps={MIB}", "riops=max", "wiops=max"),
        ]
        began = time.monotonic()
        daemon.output(container, "dd", "if=/dev/zero", "of=/v/x", "bs=256k", "count=16", "oflag=direct")
        assert time.monotonic() - began >= 2  # the kernel's promise: 4 MiB take four seconds
        assert f"{number} " in daemon.output(container, "cat", f"{OWN}/io.stat")
        daemon.remove_pod(pod)
    shutil.rmtree(place)


@pytest.fixture
def scheduler() -> Iterator[None]:
    """One that knows weights, for the disk."""
    file = Path(f"/sys/block/{DISK}/queue/scheduler")
    if subprocess.run(["modprobe", "-q", "bfq"], check=False).returncode:
        pytest.skip("this kernel has no bfq")
    before = re.findall(r"\[(.+)\]", file.read_text())[0]
    file.write_text("bfq")
    yield
    file.write_text(before)


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_a_class_of_block_io_weighs_among_others(scheduler: None, daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={CLASS: "Light"}), handler=handler)
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    assert "default 50" in daemon.output(container, "cat", f"{OWN}/io.bfq.weight").splitlines()
