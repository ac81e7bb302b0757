"""Containers through the socket: what runs, as whom, with what, and how it ends."""

import re
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for

from criollo.linux.cgroup import Hierarchies, of_process

pytestmark = pytest.mark.node


def refused(code: grpc.StatusCode, call: object) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call()  # type: ignore[operator]
    assert error.value.code() is code, error.value.details()
    return str(error.value.details())


def create_in_new_pod(daemon: Daemon, config: object) -> str:
    return daemon.create(daemon.run_pod(), config)


def run(daemon: Daemon, config: object) -> str:
    return daemon.run_container(daemon.run_pod(), config)


def test_a_container_goes_through_its_states_with_timestamps(daemon: Daemon, image: str) -> None:
    before = time.time_ns()
    container = create_in_new_pod(daemon, daemon.container_config(image, "sh", "-c", "exit 3"))
    created = daemon.status(container)
    assert (created.state, created.started_at, created.finished_at) == (pb.CONTAINER_CREATED, 0, 0)
    daemon.start_container(container)
    ended = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert (ended.exit_code, ended.reason) == (3, "Error")
    assert before < ended.created_at <= ended.started_at <= ended.finished_at <= time.time_ns()


def test_success_is_completed_with_code_zero(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "true"))
    ended = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert (ended.exit_code, ended.reason) == (0, "Completed")


def test_output_is_logged_by_stream(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sh", "-c", "echo out; echo err >&2; printf half"))
    status = daemon.wait_state(container, pb.CONTAINER_EXITED)
    lines = Path(status.log_path).read_text().splitlines()
    form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] (.*)")
    parsed = {form.fullmatch(line).group(2, 3) for line in lines}  # type: ignore[union-attr]
    assert parsed == {("stdout", "out"), ("stderr", "err"), ("stdout", "half")}


def test_a_missing_image_is_not_found(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    config = daemon.container_config("localhost/none:1", "true")
    assert "localhost/none:1" in refused(grpc.StatusCode.NOT_FOUND, lambda: daemon.create(pod, config))


def test_a_container_needs_a_ready_pod(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "true")
    refused(grpc.StatusCode.NOT_FOUND, lambda: daemon.create("e" * 64, config))
    pod = daemon.run_pod()
    daemon.stop_pod(pod)
    refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: daemon.create(pod, config))


def test_repeating_a_create_returns_the_same_container(daemon: Daemon, image: str) -> None:
    pod, config = daemon.run_pod(), daemon.container_config(image, "sleep", "1000")
    container = daemon.create(pod, config)
    assert daemon.create(pod, config) == container
    daemon.start_container(container)
    refused(grpc.StatusCode.ALREADY_EXISTS, lambda: daemon.create(pod, config))


def test_starting_twice_is_refused(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sleep", "1000"))
    refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: daemon.start_container(container))


def test_a_program_that_is_missing_fails_with_its_name(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()

    def attempt() -> None:
        daemon.run_container(pod, daemon.container_config(image, "/no/such/program"))

    assert "no/such/program" in refused(grpc.StatusCode.UNKNOWN, attempt)


def test_a_polite_container_gets_its_grace(daemon: Daemon, image: str) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    container = run(daemon, daemon.container_config(image, "sh", "-c", script))
    wait_for(lambda: "ready" in daemon.container_log(container))
    daemon.stop_container(container, timeout=20)
    status = daemon.status(container)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 7)
    assert "bye" in daemon.container_log(container)


def test_a_deaf_container_is_killed_after_its_grace(daemon: Daemon, image: str) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    container = run(daemon, daemon.container_config(image, "sh", "-c", script))
    wait_for(lambda: "ready" in daemon.container_log(container))
    daemon.stop_container(container, timeout=1)
    assert daemon.status(container).exit_code == 128 + signal.SIGKILL


def test_a_second_stop_shortens_the_grace_of_the_first(daemon: Daemon, image: str) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    container = run(daemon, daemon.container_config(image, "sh", "-c", script))
    wait_for(lambda: "ready" in daemon.container_log(container))
    first = threading.Thread(target=daemon.stop_container, args=(container,), kwargs={"timeout": 3000})
    first.start()
    wait_for(lambda: "ContainerRequest" in daemon.log())
    daemon.stop_container(container, timeout=0)
    first.join(30)
    assert not first.is_alive()
    assert daemon.status(container).exit_code == 128 + signal.SIGKILL


def test_the_stop_signal_of_the_request_wins(daemon: Daemon, image: str) -> None:
    script = "trap 'exit 21' INT; trap 'exit 15' TERM; echo ready; while :; do sleep 0.05; done"
    config = daemon.container_config(image, "sh", "-c", script)
    config.stop_signal = pb.SIGNAL_SIGINT
    container = run(daemon, config)
    assert daemon.status(container).stop_signal == pb.SIGNAL_SIGINT
    wait_for(lambda: "ready" in daemon.container_log(container))
    daemon.stop_container(container, timeout=20)
    assert daemon.status(container).exit_code == 21


def test_a_created_container_can_be_stopped_and_removed(daemon: Daemon, image: str) -> None:
    container = create_in_new_pod(daemon, daemon.container_config(image, "sleep", "1000"))
    daemon.stop_container(container, timeout=5)
    assert daemon.status(container).state == pb.CONTAINER_EXITED
    daemon.remove_container(container)
    refused(grpc.StatusCode.NOT_FOUND, lambda: daemon.status(container))


def test_removing_a_running_container_kills_it(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sleep", "1000"))
    pid = daemon.info(container)["pid"]
    daemon.remove_container(container)
    assert not Path(f"/proc/{pid}").exists()
    daemon.remove_container(container)
    daemon.stop_container(container)


def test_too_much_memory_is_reported_as_oom_killed(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1")
    config.linux.resources.memory_limit_in_bytes = 32 << 20
    container = run(daemon, config)
    ended = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)


def test_environment_and_arguments_are_exact(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sh", "-c", 'echo "$A|$0|$1"; pwd', "zero", "one two")
    config.envs.add(key="A", value=b"x y\t=z")
    config.working_dir = "/made/for/it"
    container = run(daemon, config)
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert daemon.container_log(container) == "x y\t=z|zero|one two\n/made/for/it"


def test_a_user_by_number_has_no_capabilities(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    context = config.linux.security_context
    context.run_as_user.value, context.run_as_group.value = 1234, 5678
    context.supplemental_groups.extend([91, 92])
    container = run(daemon, config)
    assert daemon.output(container, "id") == "uid=1234 gid=5678 groups=91,92,5678\n" or set(
        re.findall(r"\d+", daemon.output(container, "id"))
    ) == {"1234", "5678", "91", "92"}
    sets = dict(re.findall(r"(Cap\w+):\s+(\w+)", daemon.output(container, "cat", "/proc/self/status")))
    assert (sets["CapInh"], sets["CapEff"], sets["CapAmb"]) == ("0" * 16,) * 3
    assert daemon.status(container).user.linux.uid == 1234


def test_default_capabilities_are_the_nine_of_cri_o(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sleep", "1000"))
    sets = dict(re.findall(r"(Cap\w+):\s+(\w+)", daemon.output(container, "cat", "/proc/self/status")))
    assert sets["CapBnd"] == sets["CapEff"] == "00000000000005fb"
    assert sets["CapInh"] == sets["CapAmb"] == "0" * 16


def test_a_read_only_root_cannot_be_written(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.readonly_rootfs = True
    container = run(daemon, config)
    assert daemon.exec(container, "touch", "/file").exit_code != 0


def test_masked_and_read_only_paths_hold(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.masked_paths.extend(["/proc/kcore", "/sys/firmware"])
    config.linux.security_context.readonly_paths.extend(["/proc/sys"])
    container = run(daemon, config)
    assert daemon.output(container, "sh", "-c", "head -c 10 /proc/kcore | wc -c").strip() == "0"
    assert daemon.exec(container, "sh", "-c", "echo 1 > /proc/sys/kernel/shm_rmid_forced").exit_code != 0


def test_privileged_sees_the_nodes_devices(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.privileged = True
    pod = daemon.pod_config()
    pod.linux.security_context.privileged = True
    container = daemon.run_container(daemon.run_pod(pod), config)
    assert "loop-control" in daemon.output(container, "ls", "/dev")
    assert daemon.info(container)["privileged"] is True


def test_no_new_privileges_is_set_when_asked(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.no_new_privs = True
    container = run(daemon, config)
    assert "NoNewPrivs:\t1" in daemon.output(container, "cat", "/proc/1/status")


def test_no_new_privileges_and_dropping_all_capabilities_hold_for_everybody(daemon: Daemon, image: str) -> None:
    config, pod = daemon.container_config(image, "sleep", "1000"), daemon.pod_config()
    config.linux.security_context.no_new_privs = True
    config.linux.security_context.privileged = pod.linux.security_context.privileged = True
    container = daemon.run_container(daemon.run_pod(pod), config)
    assert "NoNewPrivs:\t1" in daemon.output(container, "cat", "/proc/1/status")
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.capabilities.add_capabilities.extend(["ALL", "NET_RAW"])
    config.linux.security_context.capabilities.drop_capabilities.append("ALL")
    told = daemon.output(run(daemon, config), "grep", "Cap[BEP]", "/proc/1/status")
    assert {line.split()[1] for line in told.splitlines()} == {f"{1 << 13:016x}"}


def test_volumes_are_mounted_and_missing_sources_made(daemon: Daemon, image: str, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("from the node\n")
    config = daemon.container_config(image, "sleep", "1000")
    config.mounts.add(container_path="/kept", host_path=str(tmp_path / "kept"), readonly=True)
    config.mounts.add(container_path="/made", host_path=str(tmp_path / "made"))
    container = run(daemon, config)
    assert daemon.output(container, "cat", "/kept/file") == "from the node\n"
    assert daemon.exec(container, "touch", "/kept/other").exit_code != 0
    daemon.output(container, "touch", "/made/here")
    assert (tmp_path / "made" / "here").exists()
    assert [mount.container_path for mount in daemon.status(container).mounts] == ["/kept", "/made"]


def test_a_device_is_there_and_only_it(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.devices.add(container_path="/dev/mine", host_path="/dev/zero", permissions="r")
    container = run(daemon, config)
    assert daemon.output(container, "sh", "-c", "head -c 4 /dev/mine | wc -c").strip() == "4"
    assert daemon.exec(container, "sh", "-c", "mknod /dev/disk b 254 0 && cat /dev/disk").exit_code != 0


def test_resources_reach_the_cgroup_and_can_be_changed(daemon: Daemon, image: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    config.linux.resources.cpu_shares = 512
    config.linux.resources.cpu_quota, config.linux.resources.cpu_period = 50_000, 100_000
    container = run(daemon, config)
    assert limits(daemon, container) == (64 << 20, pytest.approx(512, abs=30), 50_000)
    changed = pb.LinuxContainerResources(memory_limit_in_bytes=96 << 20, cpu_shares=256, cpu_quota=25_000)
    daemon.cri.call("UpdateContainerResources", pb.UpdateContainerResourcesRequest(container_id=container, linux=changed))
    assert limits(daemon, container) == (96 << 20, pytest.approx(256, abs=30), 25_000)
    told = daemon.status(container).resources.linux
    assert (told.memory_limit_in_bytes, told.cpu_shares, told.cpu_quota, told.cpu_period) == (96 << 20, 256, 25_000, 100_000)


def limits(daemon: Daemon, container: str) -> tuple[int, int, int]:
    """Memory, shares of cpu and quota, from the files of the container's cgroup."""
    hierarchies, groups = Hierarchies.detect(), of_process(daemon.info(container)["pid"])

    def read(controller: str, name: str) -> str:
        directory = hierarchies.directory(controller, groups.get(controller, groups[""]))
        assert directory is not None
        return (directory / name).read_text()

    if hierarchies.is_unified:
        shares = 2 + (int(read("cpu", "cpu.weight")) - 1) * 262_142 // 9999  # as runtimes do it the other way round
        return int(read("memory", "memory.max")), shares, int(read("cpu", "cpu.max").split()[0])
    return (
        int(read("memory", "memory.limit_in_bytes")),
        int(read("cpu", "cpu.shares")),
        int(read("cpu", "cpu.cfs_quota_us")),
    )


def test_a_rotated_log_is_reopened(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sh", "-c", "while :; do echo line; sleep 0.02; done"))
    path = Path(daemon.status(container).log_path)
    wait_for(lambda: path.exists() and path.read_text())
    path.rename(path.with_suffix(".1"))
    daemon.cri.call("ReopenContainerLog", pb.ReopenContainerLogRequest(container_id=container))
    wait_for(lambda: "line" in path.read_text())


def test_exec_gives_output_code_and_both_streams(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sleep", "1000"))
    answer = daemon.exec(container, "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 5)


def test_exec_beyond_its_time_is_killed_with_its_children(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sleep", "1000"))
    said = refused(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: daemon.exec(container, "sh", "-c", "sleep 777", timeout=1))
    assert "timed out" in said
    wait_for(lambda: "sleep 777" not in daemon.output(container, "ps"))


def test_exec_needs_a_running_container(daemon: Daemon, image: str) -> None:
    container = create_in_new_pod(daemon, daemon.container_config(image, "sleep", "1000"))
    refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: daemon.exec(container, "true"))
    refused(grpc.StatusCode.NOT_FOUND, lambda: daemon.exec("d" * 64, "true"))


def test_a_debug_container_joins_its_targets_processes(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    target = daemon.run_container(pod, daemon.container_config(image, "sleep", "4321", name="target"))
    config = daemon.container_config(image, "sleep", "1000", name="debug")
    config.linux.security_context.namespace_options.pid = pb.TARGET
    config.linux.security_context.namespace_options.target_id = target
    debug = daemon.run_container(pod, config)
    assert "sleep 4321" in daemon.output(debug, "ps")


def test_statistics_have_cpu_memory_and_writable_layer(daemon: Daemon, image: str) -> None:
    container = run(daemon, daemon.container_config(image, "sh", "-c", "dd if=/dev/zero of=/f bs=1M count=3; sleep 1000"))
    wait_for(lambda: daemon.exec(container, "test", "-s", "/f").exit_code == 0)
    found = daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats
    assert found.cpu.usage_core_nano_seconds.value > 0
    assert found.memory.working_set_bytes.value > 0
    wait_for(lambda: stats_of(daemon, container).writable_layer.used_bytes.value >= 3 << 20)
    assert [each.attributes.id for each in daemon.cri.call("ListContainerStats").stats] == [container]


def stats_of(daemon: Daemon, container: str) -> object:
    return daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats


def test_lists_filter_by_pod_state_and_label(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    config = daemon.container_config(image, "sleep", "1000", name="one")
    config.labels["tier"] = "front"
    one = daemon.run_container(pod, config)
    two = daemon.create(pod, daemon.container_config(image, "sleep", "1000", name="two"))

    def listed(**fields: object) -> list[str]:
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(**fields))
        return [each.id for each in daemon.cri.call("ListContainers", request).containers]

    assert listed(label_selector={"tier": "front"}) == [one]
    assert listed(state=pb.ContainerStateValue(state=pb.CONTAINER_CREATED)) == [two]
    assert sorted(listed(pod_sandbox_id=pod)) == sorted([one, two])
    assert listed(id=one[:16]) == [one]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.metadata.ClearField("name"), "metadata.name"),
        (lambda c: setattr(c, "log_path", "../../escape"), "log_path"),
        (lambda c: c.mounts.add(container_path="relative", host_path="/tmp"), "container_path"),
        (lambda c: c.mounts.add(container_path="/proc/sys", host_path="/tmp"), "/proc/sys"),
        (lambda c: setattr(c, "working_dir", "/proc/self/fd/7"), "/proc"),
        (lambda c: c.linux.security_context.capabilities.add_capabilities.append("NONSENSE"), "NONSENSE"),
        (lambda c: setattr(c.linux.security_context.run_as_group, "value", 5), "run_as_group"),
    ],
    ids=["name", "log path", "relative mount", "mount on proc", "cwd on proc", "capability", "group without user"],
)
def test_a_malformed_request_names_its_field(daemon: Daemon, image: str, change: object, field: str) -> None:
    pod, config = daemon.run_pod(), daemon.container_config(image, "true")
    change(config)  # type: ignore[operator]
    assert field in refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: daemon.create(pod, config))
