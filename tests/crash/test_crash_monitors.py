"""Monitors that are slower than the teardown of their containers: an exit that nobody wants any more is not left behind."""

import os
import signal
from collections.abc import Callable

import pytest
from support.cri import pb
from support.daemon import Daemon, monitor_of, wait_for
from support.faults import failed
from support.footprint import footprint, left
from support.hooked import Hooks
from support.rows import rows

pytestmark = pytest.mark.node

KNOBS = {"uncollected_s": 1, "sweep_s": 0.3}
IS_CREATED = "criollo.state.records:ContainerRows.put:before"
RUNTIME_CREATED = "criollo.runtimes.oci:OciRuntime.create:after"
POINTS = [IS_CREATED, RUNTIME_CREATED]

HOLD_MONITOR = """case "$*" in *--version*) ;; *) for last; do :; done; kill -STOP $(pgrep -f "conmon .*$last") ;; esac"""


def monitors(daemon: Daemon) -> list[int]:
    return [int(line.split()[0]) for line in footprint(daemon)["processes"] if "/conmon " in line]


def let_go(daemon: Daemon) -> None:
    for pid in monitors(daemon):
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: monitors(daemon) == [])


def test_of_a_container_that_nobody_asks_for_again(daemon: Daemon, hooks: Hooks, image: str) -> None:
    pod = daemon.run_pod(handler="hooked")
    config = daemon.container_config(image, "sleep", "1000")
    request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config())
    attach = daemon.runroot / "attach"
    with hooks.gate("create") as gate:
        call = daemon.cri.begin("CreateContainer", request)
        gate.wait_reached()
        call.cancel()
    wait_for(lambda: list(rows(daemon, "container").values()) == ["CREATED"])
    [container] = rows(daemon, "container")
    monitor = monitor_of(container)
    os.kill(monitor, signal.SIGSTOP)
    wait_for(lambda: not os.listdir(attach))  # the exit file was looked for, and was not there
    let_go(daemon)
    wait_for(lambda: not (daemon.runroot / "containers" / container).exists())
    assert os.listdir(daemon.runroot / "exits") == []


@pytest.mark.parametrize("point", POINTS)
def test_of_a_container_whose_create_failed_late(daemon: Daemon, hooks: Hooks, image: str, point: str) -> None:
    pod, config = daemon.run_pod(handler="hooked"), daemon.container_config(image, "sleep", "1000")
    fails_without_a_monitor(daemon, hooks, point, lambda: daemon.create(pod, config))


def test_of_a_pod_whose_infra_container_failed_late(daemon: Daemon, hooks: Hooks) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.pid = pb.POD
    fails_without_a_monitor(daemon, hooks, RUNTIME_CREATED, lambda: daemon.run_pod(config, handler="hooked"))


def fails_without_a_monitor(daemon: Daemon, hooks: Hooks, point: str, act: Callable[[], object]) -> None:
    before = footprint(daemon)
    with hooks.script("delete", HOLD_MONITOR):
        assert "fault was injected" in failed(daemon, point, act)
    let_go(daemon)
    assert left(daemon, before) == {}
