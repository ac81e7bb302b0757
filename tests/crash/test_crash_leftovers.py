"""What a killed daemon was in the middle of: files that it was replacing, sockets, plugins that it had called. None stays."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.faults import killed, struck
from support.footprint import footprint, left
from support.hooked import Hooks
from support.images import busybox_layer, file, make_image, write_oci_archive
from support.registry import Registry
from support.rows import change
from support.warm import passable

pytestmark = pytest.mark.node

WRITING = "criollo.linux.files:_fill:after"  # before the file has its name
WAITING_FOR_TERMINAL = "criollo.runtimes.ends:HandedOver.open:after"
POINTS = (WRITING, WAITING_FOR_TERMINAL)
NAME = "example.com/team/preloaded:v1"
ALLOWED = ["cpu-c-states.crio.io", "seccomp-notifier-action.crio.io"]
LATENCY = Path("/sys/devices/system/cpu/cpu1/power/pm_qos_resume_latency_us")


@pytest.fixture(scope="module")
def preloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preloads")


@pytest.fixture(scope="module")
def shared(registry: Registry, hooks: Hooks, preloads: Path) -> Iterator[Daemon]:
    settings: dict[str, Any] = {
        "crio.runtime.runtimes.crun.allowed_annotations": ALLOWED,
        "crio.care.preload_dir": str(preloads),
    }
    with passable() as place, hooks.daemon(place, registry, {}, settings=settings, points=POINTS) as running:
        yield running


def test_killed_while_it_starts(daemon: Daemon) -> None:
    daemon.stop()
    daemon.start(wait=False, fault=f"{WRITING}:kill")
    daemon.wait_death()
    daemon.start()
    daemon.run_pod()


def test_killed_while_it_notes_what_was_preloaded(daemon: Daemon, preloads: Path, tmp_path: Path) -> None:
    archive = write_oci_archive(tmp_path / "app.tar", {NAME: make_image([busybox_layer([file("preloaded", "")])])})
    with struck(daemon, WRITING, "kill"):
        archive.rename(preloads / "app.tar")
        daemon.wait_death()
    daemon.start()
    wait_for(lambda: [each.pinned for each in daemon.cri.call("ListImages").images if NAME in each.repo_tags] == [True])
    (preloads / "app.tar").unlink()
    wait_for(lambda: (daemon.root / "preload.json").read_text() == "{}")
    daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=NAME)))


@pytest.mark.skipif((os.cpu_count() or 1) < 2 or not LATENCY.exists(), reason="no second CPU to tune")
def test_killed_while_it_notes_what_the_cpus_were_set_to(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={"cpu-c-states.crio.io": "max_latency:17"}))
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.resources.cpu_shares = 1024
    config.linux.resources.cpuset_cpus = "1"
    container = daemon.create(pod, config)
    killed(daemon, WRITING, lambda: daemon.start_container(container))
    daemon.remove_container(container)
    assert not (daemon.runroot / "tuned.json").exists()


def test_killed_while_it_waits_for_the_terminal_of_an_exec(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    before = footprint(daemon)
    killed(daemon, WAITING_FOR_TERMINAL, lambda: daemon.kpod("exec", "-t", container, "true"))
    assert left(daemon, before) == {}
    assert daemon.kpod("exec", "-t", container, "echo", "works").split() == ["works"]


def test_the_seccomp_socket_of_a_container_that_no_row_has(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(daemon.pod_config(annotations={"seccomp-notifier-action.crio.io": "tell"}))
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.seccomp.profile_type = pb.SecurityProfile.RuntimeDefault
    container = daemon.run_container(pod, config)
    daemon.kill()
    change(daemon, "DELETE FROM container WHERE id = ?", container)
    daemon.start()
    assert list((daemon.runroot / "seccomp").iterdir()) == []


def test_a_plugin_that_was_called_attaches_no_pod_that_is_gone(daemon: Daemon, hooks: Hooks) -> None:
    slow = 'exec 9<"$CNI_NETNS"; export CNI_NETNS=/proc/self/fd/9'  # it has looked at the pod, and now takes its time
    with hooks.gate("ADD") as gate:
        script = hooks.hooks / "ADD"
        script.write_text(f"{slow}; {script.read_text()}")
        call = daemon.cri.begin("RunPodSandbox", pb.RunPodSandboxRequest(config=daemon.pod_config()))
        gate.wait_reached()
        daemon.kill()
        assert call.exception() is not None
        daemon.start()
    assert "ended a network plugin without a daemon" in daemon.log()
