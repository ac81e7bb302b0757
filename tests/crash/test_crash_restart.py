"""The daemon ends, by a crash or by request, and comes back: containers do not notice, and neither do clients."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import subnets
from support.cri import pb
from support.daemon import CRIO, Daemon, monitor_of, wait_for
from support.hooked import Hooks
from support.rows import change, reboot, rows

from criollo.linux import proctree

pytestmark = pytest.mark.node

UNTIL_GO = ("sh", "-c", 'while [ ! -e /v/go ]; do sleep 0.05; done; exec "$@"', "sh")


KNOBS = {"uncollected_s": 2, "sweep_s": 0.5, "monitor_s": 2}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def with_volume(config: Any, volume: Path) -> Any:
    config.mounts.add(container_path="/v", host_path=str(volume))
    return config


def shared_pid(daemon: Daemon) -> Any:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    return config


def picture(daemon: Daemon) -> dict[str, Any]:
    """Everything that the daemon says of pods, containers and images, as messages."""
    seen: dict[str, Any] = {}
    for pod in daemon.cri.call("ListPodSandbox").items:
        seen[f"pod {pod.id}"] = pod
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
        answer = daemon.cri.call("PodSandboxStatus", request)
        seen[f"pod status {pod.id}"], seen[f"pod info {pod.id}"] = answer.status, json.loads(answer.info["info"])
    for container in daemon.cri.call("ListContainers").containers:
        seen[f"container {container.id}"] = container
        seen[f"container status {container.id}"] = daemon.status(container.id)
        seen[f"container info {container.id}"] = daemon.info(container.id)
    for image in daemon.cri.call("ListImages").images:
        seen[f"image {image.id}"] = image
    return seen


def kill_container(daemon: Daemon, container: str, pid: int) -> None:
    """End a container's process while nobody watches, and wait for the monitor's word."""
    os.kill(pid, signal.SIGKILL)
    wait_for((daemon.runroot / "exits" / container).exists)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# What lives on


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_everything_is_as_it_was_after_a_restart(daemon: Daemon, image: str, volume: Path, number: signal.Signals) -> None:
    pods = [daemon.run_pod(), daemon.run_pod(handler="runc"), daemon.run_pod(shared_pid(daemon))]
    talk = ("sh", "-c", "n=0; while true; do n=$((n + 1)); echo $n; sleep 0.1; done")
    running = [daemon.run_container(pod, with_volume(daemon.container_config(image, *talk), volume)) for pod in pods]
    waiting = daemon.create(pods[0], daemon.container_config(image, "sleep", "1000", name="waiting"))
    ended = daemon.run_container(pods[0], daemon.container_config(image, "sh", "-c", "exit 3", name="ended"))
    daemon.wait_state(ended, pb.CONTAINER_EXITED)
    before = picture(daemon)
    pids = [before[f"container info {each}"]["pid"] for each in running]

    daemon.restart(number)

    assert picture(daemon) == before
    assert all(is_alive(pid) for pid in pids)
    for container in running:
        assert daemon.output(container, "echo", "here") == "here\n"
        lines = len(daemon.container_log(container).splitlines())
        wait_for(lambda container=container, lines=lines: len(daemon.container_log(container).splitlines()) > lines + 3)
    daemon.start_container(waiting)
    assert daemon.output(waiting, "echo", "started") == "started\n"
    for container in (*running, waiting):
        daemon.stop_container(container)
        assert daemon.status(container).exit_code == 137
        daemon.remove_container(container)
    assert [each.id for each in daemon.cri.call("ListContainers").containers] == [ended]


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_an_exit_while_the_daemon_was_down_has_its_code_and_time(
    daemon: Daemon, image: str, volume: Path, handler: str
) -> None:
    pod = daemon.run_pod(handler=handler)
    config = with_volume(daemon.container_config(image, *UNTIL_GO, "sh", "-c", "echo bye; exit 7"), volume)
    container = daemon.run_container(pod, config)
    daemon.kill()
    (volume / "go").touch()
    exit_file = daemon.runroot / "exits" / container
    wait_for(exit_file.exists)
    daemon.start()
    status = daemon.status(container)
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 7, "Error")
    assert status.finished_at == exit_file.stat().st_mtime_ns
    assert daemon.container_log(container) == "bye"


def test_a_container_killed_while_the_daemon_was_down_is_told_so(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    pid = daemon.info(container)["pid"]
    daemon.kill()
    kill_container(daemon, container, pid)
    daemon.start()
    status = daemon.status(container)
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 137, "Error")


def test_a_container_whose_monitor_was_killed_too_is_ended_with_the_reason(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    pid = daemon.info(container)["pid"]
    daemon.kill()
    os.kill(monitor_of(container), signal.SIGKILL)
    daemon.start()
    status = daemon.status(container)
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)
    assert "monitor" in status.message
    assert not is_alive(pid)


def test_an_out_of_memory_kill_while_the_daemon_was_down_is_told(daemon: Daemon, image: str, volume: Path) -> None:
    config = with_volume(daemon.container_config(image, *UNTIL_GO, "tail", "/dev/zero"), volume)
    config.linux.resources.memory_limit_in_bytes = 32 << 20
    container = daemon.run_container(daemon.run_pod(), config)
    daemon.kill()
    (volume / "go").touch()
    wait_for((daemon.runroot / "exits" / container).exists)
    daemon.start()
    status = daemon.status(container)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


def test_a_pod_whose_infra_container_ended_meanwhile_is_not_ready(daemon: Daemon) -> None:
    pod = daemon.run_pod(shared_pid(daemon))
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    pid = json.loads(daemon.cri.call("PodSandboxStatus", request).info["info"])["pid"]
    daemon.kill()
    kill_container(daemon, pod, pid)
    daemon.start()
    assert daemon.cri.call("PodSandboxStatus", request).status.state == pb.SANDBOX_NOTREADY


def test_a_pod_that_lost_its_network_namespace_is_not_ready_and_removable(daemon: Daemon, image: str) -> None:
    pod, sound = daemon.run_pod(), daemon.run_pod()
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    daemon.kill()
    subprocess.run(["umount", str(daemon.runroot / "netns" / pod)], check=True)
    daemon.start()
    states = {each.id: each.state for each in daemon.cri.call("ListPodSandbox").items}
    assert states == {pod: pb.SANDBOX_NOTREADY, sound: pb.SANDBOX_READY}
    daemon.remove_pod(pod)


def test_a_pod_whose_network_was_changed_meanwhile_is_told_of(daemon: Daemon) -> None:
    pod, sound = daemon.run_pod(), daemon.run_pod()
    daemon.stop()
    netns = f"--net={daemon.runroot}/netns/{pod}"
    subprocess.run(["nsenter", netns, "ip", "route", "delete", "default"], check=True)
    daemon.start()
    wait_for(lambda: "cannot check network" in picture(daemon)[f"pod info {pod}"]["trouble"])
    seen = picture(daemon)
    assert seen[f"pod status {pod}"].state == pb.SANDBOX_READY
    assert seen[f"pod info {sound}"]["trouble"] == ""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_start_that_a_crash_cut_can_be_repeated_or_has_happened(daemon: Daemon, image: str, moment: str) -> None:
    pod = daemon.run_pod()
    container = daemon.create(pod, daemon.container_config(image, "sleep", "1000"))
    daemon.stop()
    daemon.start(fault=f"criollo.runtimes.oci:OciRuntime.start:{moment}:kill")
    with pytest.raises(grpc.RpcError):
        daemon.start_container(container)
    daemon.wait_death()
    daemon.start()
    if moment == "before":
        assert daemon.status(container).state == pb.CONTAINER_CREATED
        assert daemon.status(container).started_at == 0
        daemon.start_container(container)
    assert daemon.status(container).state == pb.CONTAINER_RUNNING
    assert daemon.output(container, "echo", "runs") == "runs\n"


def test_containers_of_a_handler_that_left_the_configuration_can_still_go(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    configuration = daemon.place / "crio.conf"
    old = configuration.read_text()
    daemon.stop()
    configuration.write_text(old.replace("runtimes.hooked]", "runtimes.renamed]"))
    try:
        daemon.start()
        assert daemon.status(container).state == pb.CONTAINER_RUNNING
        daemon.cri.call("ListContainerStats")
        with pytest.raises(grpc.RpcError, match="runtime handler hooked not found"):
            daemon.exec(container, "true")
        daemon.stop_container(container)
        assert daemon.status(container).exit_code == 137
        daemon.remove_pod(pod)
    finally:
        configuration.write_text(old)
        daemon.restart()


# What goes


def test_after_a_reboot_all_pods_are_gone(daemon: Daemon, image: str) -> None:
    daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    daemon.run_container(daemon.run_pod(shared_pid(daemon)), daemon.container_config(image, "sleep", "1000"))
    daemon.stop()
    reboot(daemon)
    daemon.start()
    assert picture(daemon).keys() == {f"image {each.id}" for each in daemon.cri.call("ListImages").images}
    assert (rows(daemon, "pod"), rows(daemon, "container")) == ({}, {})
    daemon.restart()
    daemon.run_pod()


@pytest.mark.parametrize("document", ["garbage", '{"id": "x"}', "[" * 5000])
def test_a_broken_row_of_a_container_costs_only_that_container(daemon: Daemon, image: str, document: str) -> None:
    pod = daemon.run_pod(handler="runc")
    broken = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="broken"))
    sound = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="sound"))
    pid = daemon.info(broken)["pid"]
    daemon.kill()
    change(daemon, "UPDATE container SET document = ? WHERE id = ?", document, broken)
    daemon.start()
    assert [each.id for each in daemon.cri.call("ListContainers").containers] == [sound]
    assert not is_alive(pid)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/crio/pod{pod}/crio-{broken}"))
    assert daemon.output(sound, "echo", "lives") == "lives\n"


def test_a_broken_row_of_a_pod_costs_only_that_pod(daemon: Daemon, image: str) -> None:
    pods = [daemon.run_pod(shared_pid(daemon)), daemon.run_pod()]
    containers = [daemon.run_container(pod, daemon.container_config(image, "sleep", "1000")) for pod in pods]
    pid = daemon.info(containers[0])["pid"]
    daemon.kill()
    change(daemon, "UPDATE pod SET document = CAST(x'ff00' AS TEXT) WHERE id = ?", pods[0])
    daemon.start()
    assert [each.id for each in daemon.cri.call("ListPodSandbox").items] == [pods[1]]
    assert [each.id for each in daemon.cri.call("ListContainers").containers] == [containers[1]]
    assert not is_alive(pid)


def test_a_broken_row_of_a_pod_leaves_no_logs_where_only_ours_are(daemon: Daemon, image: str) -> None:
    config = daemon.pod_config()
    config.log_directory = ""
    broken = daemon.run_pod(config)
    daemon.run_container(broken, daemon.container_config(image, "sleep", "1000"))
    others = sorted(each.name for each in daemon.logs.iterdir() if each.name != broken)
    assert (daemon.logs / broken).is_dir()
    daemon.kill()
    change(daemon, "UPDATE pod SET document = '{' WHERE id = ?", broken)
    daemon.start()
    assert sorted(each.name for each in daemon.logs.iterdir()) == others


def test_what_no_row_owns_is_swept(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(shared_pid(daemon))
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    pid = daemon.info(container)["pid"]
    daemon.stop()
    for suffix in ("", "-wal", "-shm"):
        (daemon.root / f"state.db{suffix}").unlink(missing_ok=True)
    strangers = [daemon.root / "layers" / ("ab" * 16), daemon.root / "staging" / "half", daemon.root / "rootfs" / ("cd" * 32)]
    strangers += [daemon.runroot / "containers" / ("ef" * 32), daemon.runroot / "pods" / ("ef" * 32)]
    for directory in strangers:
        directory.mkdir()
        (directory / "file").touch()
    daemon.start()
    assert not is_alive(pid)
    assert [directory for directory in strangers if directory.exists()] == []
    assert picture(daemon).keys() == {f"image {each.id}" for each in daemon.cri.call("ListImages").images}


def test_a_network_is_deleted_by_the_configuration_it_was_added_with(daemon: Daemon) -> None:
    pod = daemon.run_pod()
    network = daemon.network_dir / "10-test.conflist"
    old = network.read_text()
    daemon.kill()
    network.write_text(old.replace('"test"', '"other"').replace(daemon.net, subnets.free()).replace("ipam", "ipam2"))
    try:
        daemon.start()
        daemon.remove_pod(pod)
    finally:
        network.write_text(old)


# What does not start


@pytest.fixture
def other(daemon: Daemon) -> Iterator[Path]:
    """Where another daemon has its own."""
    path = daemon.place / "other"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def refused(daemon: Daemon, other: Path, *, tune: Callable[[str], str] = lambda text: text) -> str:
    """Start another daemon with a changed configuration; what it says when it gives up."""
    path = other / "crio.conf"
    path.write_text(tune((daemon.place / "crio.conf").read_text()))
    ended = subprocess.run([CRIO, "-c", path, "-d", ""], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"\x07" * 5000,
        lambda raw: raw[:100],
        lambda raw: bytes(len(raw)),
        lambda raw: raw[:4096] + bytes(len(raw) - 4096),
        lambda raw: raw[:18] + b"\xff" + raw[19:],
        lambda _: b"",
    ],
    ids=["half", "garbage", "a header", "zeros", "zeros after the first page", "not to be written", "nothing"],
)
@pytest.mark.parametrize("name", ["state.db", "images.db"])
def test_a_damaged_database_is_named(daemon: Daemon, other: Path, damage: Callable[[bytes], bytes], name: str) -> None:
    daemon.stop()
    path = daemon.root / name
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    try:
        said = refused(daemon, other)
    finally:
        for suffix in ("-wal", "-shm"):
            (daemon.root / f"{name}{suffix}").unlink(missing_ok=True)
        path.write_bytes(whole)
    assert str(path) in said
    assert "is damaged" in said
    assert "move the file away" in said


def test_a_log_of_the_database_that_is_lost_costs_what_was_in_it_alone(daemon: Daemon, image: str) -> None:
    """What the last rows stood for is taken away as nobody's, what was copied before goes on."""
    pod = daemon.run_pod()
    kept = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="kept"))
    daemon.restart()  # copies the log
    lost = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="lost"))
    pid = daemon.info(lost)["pid"]
    daemon.kill()
    (daemon.root / "state.db-wal").unlink()
    (daemon.root / "state.db-shm").unlink(missing_ok=True)
    daemon.start()
    assert [each.id for each in daemon.cri.call("ListContainers").containers] == [kept]
    assert daemon.output(kept, "echo", "runs") == "runs\n"
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="lost"))


def test_a_second_daemon_on_the_same_root_is_refused(daemon: Daemon, other: Path) -> None:
    said = refused(daemon, other)
    assert f"process {daemon.pid} owns it" in said


def test_a_second_daemon_on_the_same_run_state_is_refused(daemon: Daemon, other: Path, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    said = refused(daemon, other, tune=lambda text: text.replace(f'root = "{daemon.root}"', f'root = "{other}/root"'))
    assert f"process {daemon.pid} owns it" in said
    assert daemon.output(container, "echo", "unharmed") == "unharmed\n"


def test_a_second_daemon_on_the_same_socket_is_refused(daemon: Daemon, other: Path) -> None:
    def elsewhere(text: str) -> str:
        listen = f'listen = "{daemon.socket}"'
        assert listen in text
        moved = text.replace(str(daemon.root), f"{other}/root").replace(str(daemon.runroot), f"{other}/run")
        return moved.replace(f'listen = "{other}/run/crio.sock"', listen)

    assert "served by another daemon" in refused(daemon, other, tune=elsewhere)
    daemon.cri.call("Version")
    subprocess.run(["umount", str(other / "run/netns")], check=True)


# Clients that go away


def cut(call: Any) -> None:
    """Hang up, as a client does that was killed."""
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result()


def test_a_pod_whose_client_hung_up_is_finished_and_found_by_the_retry(daemon: Daemon, hooks: Hooks) -> None:
    config = daemon.pod_config()
    with hooks.gate("ADD") as gate:
        call = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=config))
        gate.wait_reached()
        cut(call)
        gate.open()
        wait_for(lambda: list(rows(daemon, "pod").values()) == ["READY"])
    assert list(daemon.cri.call("ListPodSandbox").items) == []
    pod = daemon.run_pod(config)
    assert rows(daemon, "pod") == {pod: "READY"}
    assert [each.id for each in daemon.cri.call("ListPodSandbox").items] == [pod]


def test_a_pod_that_nobody_asks_for_again_is_torn_down(daemon: Daemon, hooks: Hooks) -> None:
    with hooks.gate("ADD") as gate:
        call = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=daemon.pod_config()))
        gate.wait_reached()
        cut(call)
    wait_for(lambda: rows(daemon, "pod") != {})
    wait_for(lambda: rows(daemon, "pod") == {})


def test_a_container_whose_client_hung_up_is_finished_and_found_by_the_retry(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    config = daemon.container_config(image, "sleep", "1000")
    request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
    with hooks.gate("create") as gate:
        call = daemon.cri.begin("CreateContainer", request)
        gate.wait_reached()
        cut(call)
    wait_for(lambda: list(rows(daemon, "container").values()) == ["CREATED"])
    assert list(daemon.cri.call("ListContainers").containers) == []
    container = daemon.create(pod, config)
    assert rows(daemon, "container") == {container: "CREATED"}
    daemon.start_container(container)


def test_a_container_that_nobody_asks_for_again_is_torn_down(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    config = daemon.container_config(image, "sleep", "1000")
    request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
    with hooks.gate("create") as gate:
        call = daemon.cri.begin("CreateContainer", request)
        gate.wait_reached()
        cut(call)
    wait_for(lambda: rows(daemon, "container") != {})
    wait_for(lambda: rows(daemon, "container") == {})


def test_a_repeated_request_waits_for_the_running_one(daemon: Daemon, hooks: Hooks) -> None:
    request = pb.RunPodSandboxRequest(config=daemon.pod_config())
    with hooks.gate("ADD") as gate:
        calls = [daemon.cri.begin("RunPodSandbox", request) for _ in range(3)]
        gate.wait_reached()
        wait_for(lambda: daemon.log().count("joined a running job") >= 2)
        assert not any(call.done() for call in calls)
        gate.open()
        assert len({call.result().pod_sandbox_id for call in calls}) == 1


def test_a_deadline_tells_the_stage(daemon: Daemon, hooks: Hooks) -> None:
    config = daemon.pod_config()
    request = pb.RunPodSandboxRequest(config=config)
    with hooks.gate("ADD") as gate:
        first = daemon.cri.begin("RunPodSandbox", request)  # grpc cancels a call that nobody holds
        gate.wait_reached()
        with pytest.raises(grpc.RpcError) as told:
            daemon.cri.call("RunPodSandbox", request, timeout_s=1)
        assert told.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "at stage 'sandbox network creation'" in told.value.details()
        gate.open()
        assert daemon.run_pod(config) == first.result().pod_sandbox_id


def test_a_start_whose_client_hung_up_is_finished(daemon: Daemon, hooks: Hooks, image: str) -> None:
    container = daemon.create(daemon.run_pod(handler="hooked"), daemon.container_config(image, "sleep", "1000"))
    with hooks.gate("start") as gate:
        call = daemon.cri.begin("StartContainer", pb.StartContainerRequest(container_id=container))
        gate.wait_reached()
        cut(call)
        started = daemon.cri.begin("StartContainer", pb.StartContainerRequest(container_id=container))
        wait_for(lambda: 'kind="start container"' in daemon.log())  # it has joined
        gate.open()
        started.result()
    assert daemon.output(container, "echo", "runs") == "runs\n"


def test_removals_whose_clients_hung_up_are_finished(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    with hooks.gate("delete") as gate:
        call = daemon.cri.begin("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
        gate.wait_reached()
        cut(call)
    wait_for(lambda: (rows(daemon, "pod"), rows(daemon, "container")) == ({}, {}))


def test_a_daemon_that_is_told_to_end_lets_a_create_finish(daemon: Daemon, hooks: Hooks) -> None:
    config = daemon.pod_config()
    with hooks.gate("ADD") as gate:
        call = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=config))
        gate.wait_reached()
        os.kill(daemon.pid, signal.SIGTERM)
        wait_for(lambda: "stopping; containers go on" in daemon.log())
        gate.open()
        pod = call.result().pod_sandbox_id
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.run_pod(config) == pod


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_runtime_waits_for_a_command_of_a_daemon_that_is_gone(daemon: Daemon, image: str, number: int) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))

    def waiting() -> list[int]:
        return [pid for pid in proctree.children(daemon.pid) if {b"exec", container.encode()} <= words(pid)]

    def words(pid: int) -> set[bytes]:
        try:
            return set(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
        except OSError:
            return set()

    for _ in range(2):
        daemon.output(container, "true")
    wait_for(lambda: len(waiting()) == 1)
    (pid,) = waiting()
    daemon.stop(number)
    wait_for(lambda: container.encode() not in words(pid))
    daemon.start()
    assert daemon.output(container, "echo", "hello") == "hello\n"
