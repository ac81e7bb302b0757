"""What a container may use: limits that are met from inside, changed while it runs, and never half changed."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.registry import Registry
from support.warm import warm_daemon

from criollo.linux.cgroup import Hierarchies, Version

MIB = 1 << 20
WORKLOAD = "crio.runtime.workloads.management"
pytestmark = pytest.mark.skipif(Hierarchies.detect().version is Version.V2, reason="reads files of cgroup version 1")


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = Path(tmp_path_factory.mktemp("node"))
    classes = directory.parent / f"{directory.name}.yaml"
    throttled = f"  Slow:\n    - Devices: [{disk()}]\n      ThrottleReadBps: 2Mi\n"
    classes.write_text(f"Classes:\n{throttled}  Light:\n    - Weight: 80\n")
    settings = {
        f"{WORKLOAD}.activation_annotation": "workload/management",
        f"{WORKLOAD}.annotation_prefix": "workload.resources",
        f"{WORKLOAD}.allowed_annotations": ["unified-cgroup.crio.io"],
        f"{WORKLOAD}.resources.cpushares": 200,
        f"{WORKLOAD}.resources.cpuset": "0",
        "crio.runtime.infra_ctr_cpuset": "0",
        "crio.runtime.shared_cpuset": "1",
        "crio.runtime.min_injected_gomaxprocs": 3,
        "crio.runtime.blockio_config_file": str(classes),
        "crio.runtime.pids_limit": 40,
        "crio.runtime.runtimes.crun.monitor_exec_cgroup": "container",
        "crio.runtime.runtimes.crun.allowed_annotations": [
            "cpu-shared.crio.io",
            "cpu-quota.crio.io",
            "platform-runtime-path.crio.io",
            "skip-gomaxprocs.crio.io",
        ],
    }
    with warm_daemon(directory, registry, settings=settings) as running:
        yield running


def disk() -> str:
    """The disk with the largest number of sectors, as a device of `/dev`."""
    sizes = {each.name: int((each / "size").read_text()) for each in Path("/sys/block").iterdir()}
    return f"/dev/{max(sizes, key=sizes.__getitem__)}"


def run(daemon: Daemon, config: Any, **pod: Any) -> str:
    return daemon.run_container(daemon.run_pod(daemon.pod_config(**pod)), config)


def sleeping(daemon: Daemon, image: str, **resources: Any) -> Any:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.MergeFrom(pb.LinuxContainerResources(**resources))
    return config


def update(daemon: Daemon, container: str, **resources: Any) -> None:
    changed = pb.LinuxContainerResources(**resources)
    daemon.cri.call("UpdateContainerResources", pb.UpdateContainerResourcesRequest(container_id=container, linux=changed))


def refused(code: grpc.StatusCode, call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code, caught.value.details()
    return str(caught.value.details())


def limit(daemon: Daemon, container: str, controller: str, name: str) -> str:
    """A file of the container's cgroup, seen from the host."""
    return Path(f"/sys/fs/cgroup/{controller}{groups(daemon.info(container)['pid'])[controller]}/{name}").read_text().strip()


def groups(pid: int) -> dict[str, str]:
    return dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())


def memory(daemon: Daemon, container: str) -> tuple[int, int]:
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    one, both = (int(limit(daemon, container, "memory", name)) for name in names)
    return one // MIB, both // MIB


def field(text: str, name: str) -> str:
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(f"{name}:"))


def test_who_takes_more_memory_than_allowed_is_killed(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "tail /dev/zero")
    config.linux.resources.memory_limit_in_bytes = 16 * MIB
    status = daemon.wait_state(run(daemon, config), pb.CONTAINER_EXITED)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_who_forks_more_than_allowed_cannot(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image))
    many = daemon.exec(container, "sh", "-c", "for i in $(seq 60); do sleep 100 & done")
    assert b"can't fork" in many.stderr
    assert int(limit(daemon, container, "pids", "pids.current")) <= 40


def test_a_process_runs_on_its_cpus_only(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image, cpuset_cpus="0"))
    assert field(daemon.output(container, "cat", "/proc/self/status"), "Cpus_allowed_list") == "0"
    update(daemon, container, cpuset_cpus="0-1")
    assert field(daemon.output(container, "cat", "/proc/self/status"), "Cpus_allowed_list") == "0-1"


def test_a_container_reads_its_own_limits_and_cannot_write_them(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image, memory_limit_in_bytes=48 * MIB))
    file = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert int(daemon.output(container, "cat", file)) == 48 * MIB
    assert b"Read-only" in daemon.exec(container, "sh", "-c", f"echo 1 > {file}").stderr


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_memory_and_swap_change_in_either_direction(daemon: Daemon, image: str, handler: str) -> None:
    config = sleeping(daemon, image, memory_limit_in_bytes=64 * MIB, memory_swap_limit_in_bytes=64 * MIB)
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert memory(daemon, container) == (64, 64)
    update(daemon, container, memory_limit_in_bytes=96 * MIB, memory_swap_limit_in_bytes=128 * MIB)
    assert memory(daemon, container) == (96, 128)
    update(daemon, container, memory_limit_in_bytes=32 * MIB, memory_swap_limit_in_bytes=32 * MIB)
    assert memory(daemon, container) == (32, 32)
    update(daemon, container, memory_limit_in_bytes=80 * MIB)
    assert memory(daemon, container) == (80, 80)
    assert daemon.status(container).resources.linux.memory_swap_limit_in_bytes == 80 * MIB


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_huge_pages_change_too(daemon: Daemon, image: str, handler: str) -> None:
    config = sleeping(daemon, image, hugepage_limits=[pb.HugepageLimit(page_size="2MB", limit=4 * MIB)])
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert limit(daemon, container, "hugetlb", "hugetlb.2MB.limit_in_bytes") == str(4 * MIB)
    update(daemon, container, hugepage_limits=[pb.HugepageLimit(page_size="2MB", limit=8 * MIB)])
    assert limit(daemon, container, "hugetlb", "hugetlb.2MB.limit_in_bytes") == str(8 * MIB)
    assert [each.limit for each in daemon.status(container).resources.linux.hugepage_limits] == [8 * MIB]


def test_a_limit_below_what_is_used_is_refused_with_both_numbers(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "dd if=/dev/zero of=/dev/shm/used bs=1M count=30; sleep 1000")
    config.linux.resources.memory_limit_in_bytes = 64 * MIB
    container = run(daemon, config)
    wait_for(lambda: int(limit(daemon, container, "memory", "memory.usage_in_bytes")) > 30 * MIB)
    said = refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        lambda: update(daemon, container, memory_limit_in_bytes=16 * MIB, cpu_shares=77),
    )
    assert f"cannot decrease memory limit to {16 * MIB} bytes: current usage is " in said
    assert memory(daemon, container)[0] == 64
    assert limit(daemon, container, "cpu", "cpu.shares") != "77"
    assert daemon.status(container).resources.linux.memory_limit_in_bytes == 64 * MIB


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_a_change_that_fails_leaves_everything_as_it_was(daemon: Daemon, image: str, handler: str) -> None:
    config = sleeping(daemon, image, memory_limit_in_bytes=64 * MIB, cpu_shares=512, cpu_quota=50_000, cpu_period=100_000)
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    files = [("cpu", "cpu.shares"), ("cpu", "cpu.cfs_quota_us"), ("memory", "memory.limit_in_bytes"), ("cpuset", "cpuset.cpus")]
    before = [limit(daemon, container, *each) for each in files]
    told = daemon.status(container).resources
    with pytest.raises(grpc.RpcError):
        update(daemon, container, memory_limit_in_bytes=32 * MIB, cpu_shares=64, cpu_quota=10_000, cpuset_cpus="999")
    assert [limit(daemon, container, *each) for each in files] == before
    assert daemon.status(container).resources == told


def test_an_ended_container_is_not_changed(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "true"))
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: update(daemon, container, cpu_shares=64))


def test_changes_outlive_the_daemon(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image, memory_limit_in_bytes=64 * MIB))
    update(daemon, container, memory_limit_in_bytes=48 * MIB, cpu_shares=99, oom_score_adj=345)
    daemon.restart()
    told = daemon.status(container).resources.linux
    assert (told.memory_limit_in_bytes, told.cpu_shares, told.oom_score_adj) == (48 * MIB, 99, 345)
    assert memory(daemon, container)[0] == 48


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_an_out_of_memory_score_reaches_all_processes_but_those_with_one_of_their_own(
    daemon: Daemon, image: str, handler: str
) -> None:
    own = "sh -c 'echo 777 > /proc/self/oom_score_adj; exec sleep 1002'"
    config = daemon.container_config(image, "sh", "-c", f"sleep 1000 & {own} & exec sleep 1001")
    config.linux.resources.oom_score_adj = 500
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    scores = "cd /proc; for p in [0-9]*; do grep -q sleep $p/comm && cat $p/oom_score_adj; done; true"
    wait_for(lambda: sorted(daemon.output(container, "sh", "-c", scores).split()) == ["500", "500", "777"])
    update(daemon, container, oom_score_adj=900)
    assert sorted(daemon.output(container, "sh", "-c", scores).split()) == ["777", "900", "900"]


def test_less_memory_than_the_handlers_minimum_is_refused(daemon: Daemon, image: str) -> None:
    said = refused(
        grpc.StatusCode.INVALID_ARGUMENT, lambda: run(daemon, sleeping(daemon, image, memory_limit_in_bytes=400 << 10))
    )
    assert "set memory limit 409600 too low" in said
    container = run(daemon, sleeping(daemon, image, memory_limit_in_bytes=64 * MIB))
    said = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: update(daemon, container, memory_limit_in_bytes=400 << 10))
    assert "too low" in said
    assert '"runtime handler" handler=crun container_min_memory=512000' in daemon.log()


def test_a_workload_gives_its_pods_cpus_and_shares(daemon: Daemon, image: str) -> None:
    annotations = {"workload/management": "", "workload.resources/other": '{"cpushares": 300, "cpuset": "1", "cpulimit": 250}'}
    pod = daemon.run_pod(daemon.pod_config(annotations=annotations))
    usual = daemon.run_container(pod, sleeping(daemon, image, cpu_shares=1000))
    other_config = sleeping(daemon, image)
    other_config.metadata.name = "other"
    other = daemon.run_container(pod, other_config)
    assert limit(daemon, usual, "cpu", "cpu.shares") == "200"
    assert field(daemon.output(usual, "cat", "/proc/self/status"), "Cpus_allowed_list") == "0"
    assert limit(daemon, other, "cpu", "cpu.shares") == "300"
    assert limit(daemon, other, "cpu", "cpu.cfs_quota_us") == "25000"
    assert field(daemon.output(other, "cat", "/proc/self/status"), "Cpus_allowed_list") == "1"
    assert daemon.status(usual).resources.linux.cpu_shares == 200


def test_a_workload_lets_its_pods_use_further_annotations(daemon: Daemon, image: str) -> None:
    wish = {"unified-cgroup.crio.io/main": "memory.high=1G"}
    run(daemon, sleeping(daemon, image), annotations=wish)  # not allowed: not looked at
    pod = daemon.run_pod(daemon.pod_config(annotations={**wish, "workload/management": ""}))
    said = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: daemon.create(pod, sleeping(daemon, image)))
    assert "this host has cgroup v1" in said


def test_a_broken_workload_annotation_refuses_its_container(daemon: Daemon, image: str) -> None:
    annotations = {"workload/management": "", "workload.resources/main": '{"cpushares": -5}'}
    pod = daemon.run_pod(daemon.pod_config(annotations=annotations))
    said = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: daemon.create(pod, sleeping(daemon, image)))
    assert "workload.resources/main" in said


@pytest.fixture
def burstable(daemon: Daemon) -> Iterator[str]:
    """A cgroup as kubelet makes it for a burstable pod, in all hierarchies."""
    path = f"/kubepods-test-{os.getpid()}/burstable/pod1"
    hierarchies = Hierarchies.detect()
    hierarchies.create(path)
    yield path
    daemon.remove_everything()
    assert hierarchies.remove(path.rpartition("/burstable")[0])


def in_parent(path: str) -> Any:
    return pb.LinuxPodSandboxConfig(
        cgroup_parent=path,
        security_context=pb.LinuxSandboxSecurityContext(namespace_options=pb.NamespaceOption(pid=pb.CONTAINER)),
    )


def test_gomaxprocs_is_twice_the_request_and_never_above_a_limit_or_a_choice(
    daemon: Daemon, image: str, burstable: str
) -> None:
    pod = daemon.run_pod(daemon.pod_config(linux=in_parent(burstable)))
    found = []
    chosen = sleeping(daemon, image, cpu_shares=4096)
    chosen.envs.add(key="GOMAXPROCS", value=b"7")
    for at, config in enumerate(
        (
            sleeping(daemon, image, cpu_shares=4096),
            sleeping(daemon, image, cpu_shares=2),
            sleeping(daemon, image, cpu_shares=4096, cpu_quota=100_000, cpu_period=100_000),
            chosen,
        )
    ):
        config.metadata.name = f"c{at}"
        container = daemon.run_container(pod, config)
        found.append(daemon.output(container, "sh", "-c", "echo ${GOMAXPROCS-none}").strip())
    assert found == ["8", "3", "none", "7"]


def test_a_pod_may_decline_gomaxprocs(daemon: Daemon, image: str, burstable: str) -> None:
    pod = daemon.pod_config(linux=in_parent(burstable), annotations={"skip-gomaxprocs.crio.io": "true"})
    container = daemon.run_container(daemon.run_pod(pod), sleeping(daemon, image))
    assert daemon.output(container, "sh", "-c", "echo ${GOMAXPROCS-none}").strip() == "none"


def test_shared_cpus_come_on_top_of_a_containers_own(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image, cpuset_cpus="0"), annotations={"cpu-shared.crio.io/main": "enable"})
    told = daemon.output(container, "sh", "-c", "echo $OPENSHIFT_ISOLATED_CPUS $OPENSHIFT_SHARED_CPUS; cat /proc/self/status")
    assert told.splitlines()[0] == "0 1"
    assert field(told, "Cpus_allowed_list") == "0-1"


def test_shared_cpus_stay_when_kubelet_moves_a_container(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image, cpuset_cpus="0"), annotations={"cpu-shared.crio.io/main": "enable"})
    for _ in range(2):
        update(daemon, container, cpuset_cpus="0")
        daemon.restart()
        assert field(daemon.output(container, "cat", "/proc/1/status"), "Cpus_allowed_list") == "0-1"
        assert daemon.output(container, "cat", "/sys/fs/cgroup/cpuset/cpuset.cpus") == "0-1\n"
        assert daemon.status(container).resources.linux.cpuset_cpus == "0-1"


def quota_above(daemon: Daemon, container: str) -> str:
    """Of the cgroup of a container's pod."""
    place = groups(daemon.info(container)["pid"])["cpu"].rpartition("/")[0]
    return Path(f"/sys/fs/cgroup/cpu{place}/cpu.cfs_quota_us").read_text().strip()


def test_whole_cpus_are_freed_of_the_quota_of_container_and_pod(daemon: Daemon, image: str) -> None:
    wish = {"cpu-quota.crio.io": "disable"}
    config = daemon.pod_config(annotations=wish)
    config.linux.resources.MergeFrom(pb.LinuxContainerResources(cpu_quota=100_000, cpu_period=100_000, cpu_shares=1024))
    whole = sleeping(daemon, image, cpu_quota=100_000, cpu_period=100_000, cpu_shares=1024)
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, whole)
    update(daemon, container, cpu_quota=50_000, cpu_period=100_000)
    resize(daemon, pod, cpu_quota=50_000, cpu_period=100_000)
    assert daemon.output(container, "cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us") == "-1\n"
    assert quota_above(daemon, container) == "-1"
    assert daemon.status(container).resources.linux.cpu_quota == -1
    half = run(daemon, sleeping(daemon, image, cpu_quota=50_000, cpu_period=100_000, cpu_shares=512), annotations=wish)
    assert daemon.output(half, "cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us") == "50000\n"


def test_an_annotation_that_does_nothing_is_told_at_the_start_and_at_a_create(daemon: Daemon, image: str) -> None:
    run(daemon, sleeping(daemon, image), annotations={"platform-runtime-path.crio.io": "/x"})
    lines = [line for line in daemon.log().splitlines() if "platform-runtime-path.crio.io" in line]
    assert any("allowed annotation has no effect" in line for line in lines)
    assert any("annotation platform-runtime-path.crio.io has no effect" in line for line in lines)


def test_pause_process_and_monitors_keep_off_the_cpus_of_containers(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, sleeping(daemon, image))
    answer = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True))
    infra, first = json.loads(answer.info["info"])["pid"], daemon.info(container)["pid"]
    parents = [int(field(Path(f"/proc/{pid}/status").read_text(), "PPid")) for pid in (infra, first)]
    allowed = [field(Path(f"/proc/{pid}/status").read_text(), "Cpus_allowed_list") for pid in (infra, *parents, first)]
    assert allowed == ["0", "0", "0", field(Path("/proc/self/status").read_text(), "Cpus_allowed_list")]


@pytest.mark.parametrize(("handler", "is_inside"), [("crun", True), ("runc", False)])
def test_the_runtime_of_an_exec_counts_with_the_container_where_its_handler_says_so(
    daemon: Daemon, image: str, handler: str, is_inside: bool
) -> None:
    container = daemon.run_container(daemon.run_pod(handler=handler), sleeping(daemon, image))
    first = daemon.info(container)["pid"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(daemon.exec, container, "sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done")
        group = Path(f"/sys/fs/cgroup/memory{groups(first)['memory']}/cgroup.procs")
        wait_for(lambda: any(command(pid) == "sh" for pid in group.read_text().split()))
        found = any(handler in command(pid) for pid in group.read_text().split())
        daemon.output(container, "touch", "/tmp/end")
        assert running.result(30).exit_code == 0
    assert found is is_inside


def command(pid: str) -> str:
    """The name of the program that a process runs, empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].rpartition("/")[2]
    except OSError:
        return ""


def test_a_class_of_block_io_throttles_its_disk(daemon: Daemon, image: str) -> None:
    container = run(daemon, sleeping(daemon, image), annotations={"blockio.resources.beta.kubernetes.io/pod": "Slow"})
    number = os.stat(disk()).st_rdev
    file = limit(daemon, container, "blkio", "blkio.throttle.read_bps_device")
    assert file == f"{os.major(number)}:{os.minor(number)} {2 * MIB}"
    pod = daemon.run_pod(daemon.pod_config(annotations={"blockio.resources.beta.kubernetes.io/pod": "Slower"}))
    assert "Slow" in refused(grpc.StatusCode.NOT_FOUND, lambda: daemon.create(pod, sleeping(daemon, image)))


def test_a_class_of_block_io_weighs_as_a_container_sees_itself(daemon: Daemon, image: str) -> None:
    """runc: crun 1.8 writes a file that kernels without CFQ lack on cgroup version 1."""
    pod = daemon.pod_config(annotations={"blockio.resources.beta.kubernetes.io/pod": "Light"})
    container = daemon.run_container(daemon.run_pod(pod, handler="runc"), sleeping(daemon, image))
    assert daemon.output(container, "cat", "/sys/fs/cgroup/blkio/blkio.bfq.weight") == "80\n"


def test_a_class_of_rdt_is_refused_where_there_is_none(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={"rdt.resources.beta.kubernetes.io/container.main": "gold"}))
    said = refused(grpc.StatusCode.UNIMPLEMENTED, lambda: daemon.create(pod, sleeping(daemon, image)))
    assert "RDT class gold" in said


# The cgroup above the containers


def resize(daemon: Daemon, pod: str, overhead: Any = None, **resources: Any) -> None:
    request = pb.UpdatePodSandboxResourcesRequest(
        pod_sandbox_id=pod, overhead=overhead, resources=pb.LinuxContainerResources(**resources) if resources else None
    )
    daemon.cri.call("UpdatePodSandboxResources", request)


def told_of(daemon: Daemon, pod: str) -> Any:
    answer = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True))
    return json.loads(answer.info["info"])


def test_a_pod_of_ours_is_resized_in_both_directions_and_stays_so(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    daemon.run_container(pod, sleeping(daemon, image))
    group = Path("/sys/fs/cgroup/memory", told_of(daemon, pod)["cgroupParent"].lstrip("/"), "memory.limit_in_bytes")
    found = []
    for size in (64, 96, 32):
        resize(daemon, pod, pb.LinuxContainerResources(memory_limit_in_bytes=8 * MIB), memory_limit_in_bytes=size * MIB)
        found.append(int(group.read_text()) // MIB)
    assert found == [72, 104, 40]
    daemon.restart()
    told = told_of(daemon, pod)
    assert told["linuxResources"] == {"memory_limit_in_bytes": 32 * MIB}
    assert told["linuxOverhead"] == {"memory_limit_in_bytes": 8 * MIB}


def test_a_pod_of_ours_has_its_size_from_the_beginning(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    pages = [pb.HugepageLimit(page_size="2MB", limit=4 * MIB)]
    config.linux.resources.MergeFrom(
        pb.LinuxContainerResources(
            memory_limit_in_bytes=64 * MIB, memory_swap_limit_in_bytes=64 * MIB, cpu_shares=200, hugepage_limits=pages
        )
    )
    config.linux.overhead.MergeFrom(pb.LinuxContainerResources(memory_limit_in_bytes=8 * MIB, cpu_shares=50))
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, sleeping(daemon, image))
    assert field(
        daemon.output(container, "grep", "hierarchical", "/sys/fs/cgroup/memory/memory.stat").replace(" ", ":"),
        "hierarchical_memory_limit",
    ) == str(72 * MIB)
    parent = told_of(daemon, pod)["cgroupParent"].lstrip("/")
    held = {
        "memory/memory.limit_in_bytes": 72 * MIB,
        "memory/memory.memsw.limit_in_bytes": 72 * MIB,
        "cpu/cpu.shares": 250,
        "hugetlb/hugetlb.2MB.limit_in_bytes": 4 * MIB,
    }
    for file, value in held.items():
        controller, _, name = file.partition("/")
        assert int(Path("/sys/fs/cgroup", controller, parent, name).read_text()) == value, file
    resize(daemon, pod, memory_limit_in_bytes=96 * MIB)
    assert int(Path("/sys/fs/cgroup/memory", parent, "memory.memsw.limit_in_bytes").read_text()) > 96 * MIB


def test_a_size_that_cannot_be_refuses_the_pod_and_leaves_nothing(daemon: Daemon) -> None:
    config = daemon.pod_config()
    config.linux.resources.cpuset_cpus = "0,700"
    before = {each.name for each in Path("/sys/fs/cgroup/cpuset/crio").glob("*")}
    with pytest.raises(grpc.RpcError, match="set the limits of cgroup"):
        daemon.run_pod(config)
    assert {each.name for each in Path("/sys/fs/cgroup/cpuset/crio").glob("*")} == before


def test_a_pod_is_not_made_smaller_than_what_it_uses(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(
        pod, daemon.container_config(image, "sh", "-c", "dd if=/dev/zero of=/dev/shm/used bs=1M count=30; sleep 1000")
    )
    wait_for(lambda: int(limit(daemon, container, "memory", "memory.usage_in_bytes")) > 30 * MIB)
    resize(daemon, pod, memory_limit_in_bytes=64 * MIB)
    said = refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: resize(daemon, pod, memory_limit_in_bytes=16 * MIB))
    assert "cannot decrease memory limit" in said
    assert told_of(daemon, pod)["linuxResources"] == {"memory_limit_in_bytes": 64 * MIB}


def test_what_kubelet_has_set_for_a_pod_is_left_to_it(daemon: Daemon, image: str, burstable: str) -> None:
    own = Path(f"/sys/fs/cgroup/memory{burstable}/memory.limit_in_bytes")
    own.write_text(str(200 * MIB))
    pod = daemon.run_pod(daemon.pod_config(linux=in_parent(burstable)))
    container = daemon.run_container(pod, sleeping(daemon, image))
    resize(daemon, pod, memory_limit_in_bytes=64 * MIB)
    assert int(own.read_text()) == 200 * MIB
    assert f"{burstable}/crio-{container}" in Path(f"/proc/{daemon.info(container)['pid']}/cgroup").read_text()
    assert told_of(daemon, pod)["linuxResources"] == {"memory_limit_in_bytes": 64 * MIB}


def test_a_stopped_pod_is_not_resized(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    daemon.stop_pod(pod)
    refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: resize(daemon, pod, memory_limit_in_bytes=64 * MIB))


def test_a_workload_without_activation_stops_the_start(daemon: Daemon, tmp_path: Path) -> None:
    conf = tmp_path / "crio.conf"
    conf.write_text('[crio.runtime.workloads.x.resources]\ncpuset = "0-"\n')
    crio = Path(daemon.process.args[0]).parent / "crio" if daemon.process else Path("crio")  # type: ignore[index]
    ran = subprocess.run([str(crio), "-c", str(conf), "-d", "", "config"], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "crio.runtime.workloads.x.activation_annotation" in ran.stderr
