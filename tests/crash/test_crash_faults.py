"""Parts that fail, hang or lie, and resources that run out: a clear error, nothing left, the retry works."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.cri import pb, told
from support.daemon import Daemon, monitor_of, wait_for
from support.dead_mount import dead_mount, needs_fuse
from support.footprint import footprint, left
from support.hooked import Hooks

from criollo.aio import threads

pytestmark = pytest.mark.node

GONE = "call cancelled by its client"
SAYS_NO = """echo '{"cniVersion": "1.0.0", "code": 11, "msg": "the cable is cut"}'; exit 1"""


# What works is far below these limits on a loaded machine, too.
KNOBS = {"sweep_s": 0.3, "monitor_s": 1, "plugin_s": 8, "create_limit_s": 4, "verb_limit_s": 4, "probe_s": 8}


@pytest.fixture(autouse=True)
def lives_on(daemon: Daemon) -> Iterator[None]:
    """No part that fails ends the daemon."""
    pid = daemon.pid
    yield
    assert daemon.pid == pid
    assert daemon.process is not None
    assert daemon.process.poll() is None


def network_condition(daemon: Daemon) -> Any:
    conditions = daemon.cri.call("Status").status.conditions
    return next(each for each in conditions if each.type == "NetworkReady")


@contextlib.contextmanager
def network_file(daemon: Daemon, change: Callable[[str], str]) -> Iterator[None]:
    """Change the network's file while the block runs; afterwards the old one is in force again."""
    path = daemon.network_dir / "10-test.conflist"
    old = path.read_text()
    path.write_text(change(old))
    try:
        yield
    finally:
        path.write_text(old)
        wait_for(lambda: network_condition(daemon).status)


def run_hooked(daemon: Daemon, image: str, handler: str = "hooked") -> tuple[str, str]:
    pod = daemon.run_pod(handler=handler)
    return pod, daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))


# Networks


def test_a_broken_network_file_is_told_and_a_sound_one_noticed(daemon: Daemon) -> None:
    with network_file(daemon, lambda text: text[:-20]):
        wait_for(lambda: not network_condition(daemon).status)
        condition = network_condition(daemon)
        assert condition.reason == "NetworkPluginNotReady"
        assert "10-test.conflist" in condition.message
    daemon.run_pod()


def test_a_missing_plugin_is_named(daemon: Daemon) -> None:
    with network_file(daemon, lambda text: text.replace('"hooked"', '"nosuchplugin"')):
        wait_for(lambda: not network_condition(daemon).status)
        assert "nosuchplugin" in network_condition(daemon).message
    daemon.run_pod()


def waits(daemon: Daemon, name: str) -> bool:
    told = [line for line in daemon.log().splitlines() if "the pod sandbox waits for it" in line]
    return any(f" name={name} " in line for line in told)


def test_a_pod_waits_for_a_network_that_is_not_there_yet(daemon: Daemon) -> None:
    with network_file(daemon, lambda text: ""):
        wait_for(lambda: not network_condition(daemon).status)
        run = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=daemon.pod_config("early")))
        wait_for(lambda: waits(daemon, "early"))
        assert not run.done()
        on_host = daemon.pod_config()
        on_host.linux.security_context.namespace_options.network = pb.NODE
        daemon.run_pod(on_host)
    assert run.result().pod_sandbox_id in [each.id for each in daemon.cri.call("ListPodSandbox").items]


def test_a_pod_that_cannot_be_need_not_wait(daemon: Daemon) -> None:
    with network_file(daemon, lambda text: ""):
        wait_for(lambda: not network_condition(daemon).status)
        config = daemon.pod_config()
        config.linux.sysctls["kernel.panic"] = "1"
        assert told(lambda: daemon.run_pod(config))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_pod_that_nobody_waits_for_any_more_is_not_made(daemon: Daemon) -> None:
    config = daemon.pod_config("late")
    with network_file(daemon, lambda text: ""):
        wait_for(lambda: not network_condition(daemon).status)
        run = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=config))
        wait_for(lambda: waits(daemon, "late"))
        gone = daemon.log().count(GONE)
        run.cancel()
        wait_for(lambda: daemon.log().count(GONE) > gone)
    assert not daemon.cri.call("ListPodSandbox").items
    daemon.run_pod(config)


def test_a_deadline_ends_the_wait_and_says_for_what(daemon: Daemon) -> None:
    with network_file(daemon, lambda text: ""):
        wait_for(lambda: not network_condition(daemon).status)
        request = pb.RunPodSandboxRequest(config=daemon.pod_config())
        code, _ = told(lambda: daemon.cri.call("RunPodSandbox", request, timeout_s=0.3))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_plugin_that_fails_on_add_is_quoted_and_undone(daemon: Daemon, hooks: Hooks) -> None:
    config, before = daemon.pod_config(), footprint(daemon)
    with hooks.script("ADD", SAYS_NO):
        assert "the cable is cut" in told(lambda: daemon.run_pod(config))[1]
    assert left(daemon, before) == {}
    daemon.run_pod(config)


@pytest.mark.parametrize("answer", ["not json", "[]", '{"ips": [{"address": "nonsense"}], "cniVersion": "1.0.0"}'])
def test_a_plugin_that_answers_garbage_is_undone(daemon: Daemon, hooks: Hooks, answer: str) -> None:
    config, before = daemon.pod_config(), footprint(daemon)
    with hooks.script("ADD", f"echo '{answer}'; exit 0"):
        assert "hooked" in told(lambda: daemon.run_pod(config))[1] or "network" in told(lambda: daemon.run_pod(config))[1]
    assert left(daemon, before) == {}
    daemon.run_pod(config)


def test_a_plugin_that_hangs_on_add_is_killed_at_its_limit(daemon: Daemon, hooks: Hooks, tmp_path: Path) -> None:
    before = footprint(daemon)
    with hooks.script("ADD", f"echo $$ > {tmp_path}/pid; exec sleep 1000"):
        code, text = told(daemon.run_pod)
    assert "still running after 8 s" in text
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert left(daemon, before) == {}


def test_a_hanging_plugin_holds_up_nobody_else(daemon: Daemon, hooks: Hooks, image: str) -> None:
    with hooks.script("ADD", "case $CNI_ARGS in *K8S_POD_NAME=slow*) exec sleep 1000;; esac"):
        slow = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=daemon.pod_config("slow")))
        for _ in range(4):
            run_hooked(daemon, image)
        assert not slow.done()
        assert slow.exception() is not None


def test_a_plugin_that_fails_on_del_delays_nothing_and_is_retried(daemon: Daemon, hooks: Hooks, image: str) -> None:
    before = footprint(daemon)
    stopped, removed = daemon.run_pod(), run_hooked(daemon, image)[0]
    with hooks.script("DEL", SAYS_NO):
        daemon.stop_pod(stopped)
        daemon.remove_pod(removed)
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=stopped, verbose=True)
        assert "the cable is cut" in json.loads(daemon.cri.call("PodSandboxStatus", request).info["info"])["trouble"]
        assert [each.id for each in daemon.cri.call("ListPodSandbox").items] == [stopped]
        assert len(footprint(daemon)["addresses"] - before["addresses"]) == 2
        assert "network deletion failed; the sweeper will retry" in daemon.log()
    wait_for(lambda: footprint(daemon)["addresses"] == before["addresses"])
    wait_for(lambda: json.loads(daemon.cri.call("PodSandboxStatus", request).info["info"])["trouble"] == "")


# Runtimes


def test_a_runtime_that_refuses_to_create_is_quoted(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod, config = daemon.run_pod(handler="hooked"), daemon.container_config(image, "sleep", "1000")
    before = footprint(daemon)
    with hooks.script("create", "echo 'no room at the inn' >&2; exit 1"):
        assert "no room at the inn" in told(lambda: daemon.create(pod, config))[1]
    assert left(daemon, before) == {}
    daemon.start_container(daemon.create(pod, config))


def test_a_runtime_that_hangs_in_create_is_killed_at_its_limit(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod, config = daemon.run_pod(handler="hooked"), daemon.container_config(image, "sleep", "1000")
    before = footprint(daemon)
    with hooks.script("create", "sleep 1000 & sleep 1000"):
        code, text = told(lambda: daemon.create(pod, config))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "within 4 s" in text
    assert "Container creation timeout (4s)" in daemon.log()
    assert left(daemon, before) == {}
    daemon.start_container(daemon.create(pod, config))


@pytest.mark.parametrize("script", ["echo 'cannot start: bad weather' >&2; exit 1", "exec sleep 1000"])
def test_a_start_that_fails_leaves_an_exited_container(daemon: Daemon, hooks: Hooks, image: str, script: str) -> None:
    container = daemon.create(daemon.run_pod(handler="hooked"), daemon.container_config(image, "sleep", "1000"))
    pid = daemon.info(container)["pid"]
    with hooks.script("start", script):
        said = told(lambda: daemon.start_container(container))[1]
    status = daemon.status(container)
    assert (status.state, status.reason, status.exit_code) == (pb.CONTAINER_EXITED, "StartError", 128)
    assert status.message in said
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    assert told(lambda: daemon.start_container(container))[1].endswith("is EXITED; this needs CREATED")
    daemon.remove_container(container)


@pytest.mark.parametrize("script", ["echo 'out of bullets' >&2; exit 1", "exec sleep 1000"])
def test_a_runtime_that_does_not_kill_does_not_keep_its_container(
    daemon: Daemon, hooks: Hooks, image: str, script: str
) -> None:
    _, container = run_hooked(daemon, image, "stranger")
    with hooks.script("kill", script):
        daemon.stop_container(container, timeout=1)
    assert daemon.status(container).exit_code == 137


def test_a_runtime_that_fails_to_delete_is_asked_again(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod, container = run_hooked(daemon, image)
    with hooks.script("delete", "echo 'still in use' >&2; exit 1"):
        assert "still in use" in told(lambda: daemon.remove_container(container))[1]
        assert daemon.status(container).state == pb.CONTAINER_UNKNOWN
        assert "still in use" in daemon.info(container)["trouble"]
        assert "still in use" in told(lambda: daemon.remove_container(container))[1]
        wait_for(lambda: "sweep failed; trying again later" in daemon.log())
    wait_for(lambda: list(daemon.cri.call("ListContainers").containers) == [])
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))


def test_one_container_that_cannot_be_removed_keeps_no_other(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    names = ("one", "two", "three")
    stuck, *_ = [daemon.run_container(pod, daemon.container_config(image, "sleep", "9", name=name)) for name in names]
    with hooks.script("delete", f"case \"$*\" in *{stuck}*) echo 'still in use' >&2; exit 1;; esac"):
        daemon.stop_pod(pod)
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=pod)
        assert "still in use" in told(lambda: daemon.cri.call("RemovePodSandbox", request))[1]
        assert [each.id for each in daemon.cri.call("ListContainers").containers] == [stuck]
        assert [each.id for each in daemon.cri.call("ListPodSandbox").items] == [pod]
    wait_for(lambda: list(daemon.cri.call("ListPodSandbox").items) == [])


def test_a_runtime_that_vanished_is_named_and_its_containers_still_stop(
    daemon: Daemon, hooks: Hooks, image: str, tmp_path: Path
) -> None:
    pod, container = run_hooked(daemon, image)
    program = hooks.directory / "hooked"
    shutil.move(program, tmp_path / "away")
    try:
        code, text = told(lambda: daemon.create(pod, daemon.container_config(image, "sleep", "1000", name="second")))
        assert str(program) in text
        assert code is not grpc.StatusCode.INTERNAL
        assert str(program) in told(lambda: daemon.exec(container, "true"))[1]
        daemon.stop_container(container)
        assert str(program) in told(lambda: daemon.remove_container(container))[1]
    finally:
        shutil.move(tmp_path / "away", program)
    daemon.remove_container(container)


# A pod that goes down while something happens in it


@pytest.mark.parametrize("verb", ["StopPodSandbox", "RemovePodSandbox"])
def test_a_create_in_a_pod_that_goes_down_is_cut(daemon: Daemon, hooks: Hooks, image: str, verb: str) -> None:
    pod, before = daemon.run_pod(handler="hooked"), footprint(daemon)
    config = daemon.container_config(image, "sleep", "1000")
    with hooks.gate("create") as gate:
        request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
        creating = daemon.cri.begin("CreateContainer", request)
        gate.wait_reached()
        daemon.cri.call(verb, getattr(pb, f"{verb}Request")(pod_sandbox_id=pod))
        assert told(creating.result)[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert list(daemon.cri.call("ListContainers").containers) == []
    assert left(daemon, before) == {}


def test_a_pod_that_is_stopped_while_a_container_starts_has_none_running(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    container = daemon.create(pod, daemon.container_config(image, "sleep", "1000"))
    with hooks.gate("start") as gate:
        starting = daemon.cri.begin("StartContainer", pb.StartContainerRequest(container_id=container))
        gate.wait_reached()
        daemon.stop_pod(pod)
        assert daemon.status(container).state == pb.CONTAINER_EXITED
        gate.open()
        assert starting.exception() is not None
    assert daemon.status(container).state == pb.CONTAINER_EXITED


def test_removals_at_once_agree(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    calls = [daemon.cri.begin("RemoveContainer", pb.RemoveContainerRequest(container_id=container)) for _ in range(3)]
    calls += [daemon.cri.begin("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=pod)) for _ in range(2)]
    calls += [daemon.cri.begin("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod)) for _ in range(3)]
    for call in calls:
        call.result()
    assert list(daemon.cri.call("ListPodSandbox").items) == []


def test_pods_may_share_a_cgroup_parent(daemon: Daemon, image: str) -> None:
    parent = f"/criollo-shared-{daemon.pid}"
    pods = []
    for _ in range(2):
        config = daemon.pod_config()
        config.linux.cgroup_parent = parent
        pods.append(daemon.run_pod(config))
        daemon.run_container(pods[-1], daemon.container_config(image, "sleep", "1000"))
    daemon.remove_pod(pods[0])
    daemon.remove_pod(pods[1])
    assert not list(Path("/sys/fs/cgroup").glob(f"*{parent}"))


# Monitors


def test_a_monitor_that_was_killed_takes_its_container_along(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    pid = daemon.info(container)["pid"]
    os.kill(monitor_of(container), signal.SIGKILL)
    status = daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert status.exit_code == 137
    assert "conmon" in status.message
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("shares", [False, True])
def test_a_monitor_that_does_not_move_does_not_keep_its_container(daemon: Daemon, image: str, shares: bool) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD if shares else pb.CONTAINER
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    for stopped in (container, pod) if shares else (container,):
        os.kill(monitor_of(stopped), signal.SIGSTOP)
    daemon.stop_container(container)
    assert daemon.status(container).exit_code == 137
    daemon.remove_pod(pod)


# Volumes


@needs_fuse
def test_a_volume_that_hangs_is_named_and_holds_up_nobody_else(daemon: Daemon, image: str, tmp_path: Path) -> None:
    volume = tmp_path / "dead"
    pod = daemon.run_pod()
    config = daemon.container_config(image, "sleep", "1000", name="hangs")
    config.mounts.add(container_path="/v", host_path=str(volume / "below"))
    request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
    with dead_mount(volume):
        call = daemon.cri.begin("CreateContainer", request)
        for number in range(3):
            daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name=f"beside{number}"))
        assert not call.done()
        code, text = told(call.result)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert str(volume) in text


# Many


def test_a_flood_of_pods_leaves_nothing(daemon: Daemon, image: str) -> None:
    def cycle(number: int) -> None:
        pod = daemon.run_pod(daemon.pod_config(f"flood-{number}"))
        container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
        daemon.stop_container(container)
        daemon.remove_pod(pod)

    def flood() -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            list(clients.map(cycle, range(30)))

    def lists(done: threading.Event) -> int:
        count = 0
        while not done.is_set() or count < 200:
            for call in ("ListPodSandbox", "ListContainers", "ListContainerStats"):
                daemon.cri.call(call)
                count += 1
        return count

    flood()
    before = leaks.held_by(daemon.pid)
    done = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as watcher:
        counted = watcher.submit(lists, done)
        flood()
        done.set()
        assert counted.result() >= 200
    assert leaks.settled(lambda: grown(before, leaks.held_by(daemon.pid)), 60) == {}


def grown(before: dict[str, int], now: dict[str, int]) -> dict[str, list[str]]:
    """Pools of threads may fill up to their sizes, whoever fills them."""
    limits = {"fds": before["fds"], "threads": 2 + sum(threads._SIZES.values())}
    return {kind: [f"{before[kind]} -> {now[kind]}"] for kind, limit in limits.items() if now[kind] > limit}
