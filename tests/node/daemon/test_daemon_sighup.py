"""SIGHUP at a running daemon: what changes at once, what waits for a restart, and a configuration that cannot be used."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.image_node import pull, remove, status
from support.registry import Registry
from support.warm import warm_daemon

from criollo.linux.cgroup import Hierarchies, Version, of_process

pytestmark = pytest.mark.node

V2 = Hierarchies.detect().version is Version.V2
DONE = "configuration reload completed"


@pytest.fixture
def daemon(registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    before = leaks.snapshot()
    with running_daemon(tmp_path / "node", registries=registry.registries_conf()) as running:
        yield running
    assert leaks.leaked(before) == {}


def change(daemon: Daemon, *pairs: tuple[str, str], said: str = DONE) -> str:
    """Replace texts of the configuration, send SIGHUP, and return what the daemon logged until it `said` it is done."""
    conf = daemon.place / "crio.conf"
    text = conf.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    conf.write_text(text)
    seen = len(daemon.log())
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: said in daemon.log()[seen:])
    return daemon.log()[seen:]


def test_the_log_level_changes(daemon: Daemon) -> None:
    said = change(daemon, ('log_level = "debug"', 'log_level = "info"'))
    assert "key=crio.runtime.log_level value=info" in said
    seen = len(daemon.log())
    daemon.cri.call("ListImages")
    assert " debug " not in daemon.log()[seen:]


def test_pinned_images_change(daemon: Daemon, registry: Registry) -> None:
    name = registry.reference("busybox")
    pull(daemon, name)
    assert not status(daemon, name).pinned
    change(daemon, ("[crio.image]\n", f'[crio.image]\npinned_images = ["{name}"]\n'))
    assert status(daemon, name).pinned
    change(daemon, (f'pinned_images = ["{name}"]\n', ""))
    assert not status(daemon, name).pinned
    remove(daemon, name)


def test_registries_are_read_again(daemon: Daemon, registry: Registry) -> None:
    conf = daemon.place / "registries.conf"
    rules = conf.read_text()
    conf.write_text(rules + f'\n[[registry]]\nprefix = "{registry.host}/blocked"\nlocation = "x.invalid"\nblocked = true\n')
    change(daemon)
    assert "blocked" in refusal(daemon, f"{registry.host}/blocked/app:v1")
    conf.write_text("nonsense")
    assert "registries.conf" in change(daemon, said="unable to reload configuration")
    assert "blocked" in refusal(daemon, f"{registry.host}/blocked/app:v1")


def refusal(daemon: Daemon, name: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        pull(daemon, name)
    return str(caught.value.details())


def test_what_needs_a_restart_is_named_once(daemon: Daemon) -> None:
    said = change(daemon, ('log_level = "debug"', 'log_level = "debug"\npids_limit = 77'))
    assert "a restart is needed" in said
    assert "key=crio.runtime.pids_limit" in said
    assert "a restart is needed" not in change(daemon)


def test_a_configuration_that_cannot_be_used_changes_nothing(daemon: Daemon) -> None:
    said = change(daemon, ('log_level = "debug"', 'log_level = "loud"'), said="unable to reload configuration")
    assert "log_level" in said
    seen = len(daemon.log())
    daemon.cri.call("ListImages")
    assert " debug " in daemon.log()[seen:]
    assert DONE in change(daemon, ('log_level = "loud"', 'log_level = "debug"'))


def test_log_filter_changes(daemon: Daemon) -> None:
    change(daemon, ('log_level = "debug"', 'log_level = "debug"\nlog_filter = "Version|reload"'))
    seen = len(daemon.log())
    daemon.cri.call("ListImages")
    daemon.cri.call("Version")
    assert "ListImages" not in daemon.log()[seen:]
    assert "Version" in daemon.log()[seen:]


def test_runtime_handlers_come_and_change(daemon: Daemon) -> None:
    def told() -> tuple[list[str], dict[str, Any]]:
        reply = daemon.cri.call("Status", pb.StatusRequest(verbose=True))
        return [each.name for each in reply.runtime_handlers], json.loads(reply.info["config"])["crio"]

    before = daemon.run_pod()
    assert told()[1]["Runtimes"]["crun"]["ContainerCreateTimeout"] == 240
    table = "[crio.runtime.runtimes.crun]\n"
    own = f'[crio.runtime.runtimes.other]\nruntime_path = "{shutil.which("crun")}"\nruntime_root = "{daemon.runroot}/other"\n'
    change(daemon, (table, f"{own}container_create_timeout = 15\n{table}container_create_timeout = 300\n"))
    handlers, config = told()
    assert "other" in handlers
    assert {name: config["Runtimes"][name]["ContainerCreateTimeout"] for name in ("other", "crun")} == {
        "other": 30,
        "crun": 300,
    }
    pod = daemon.run_pod(handler="other")
    for each in (before, pod):
        daemon.cri.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=each))


def test_handler_that_does_not_work_changes_nothing(daemon: Daemon) -> None:
    said = change(
        daemon, ("[crio.runtime]\n", '[crio.runtime]\ndefault_runtime = "none"\n'), said="unable to reload configuration"
    )
    assert "default_runtime" in said
    pod = daemon.run_pod()
    daemon.cri.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod))


def test_default_seccomp_profile_is_read_again(daemon: Daemon) -> None:
    profile = daemon.place / "seccomp.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    change(daemon, ("[crio.runtime]\n", f'[crio.runtime]\nseccomp_profile = "{profile}"\n'))
    profile.write_text("{nonsense")
    assert "seccomp.json" in change(daemon, said="unable to reload configuration")


def throttle(daemon: Daemon, image: str) -> str:
    """What a new container of the class Slow may read of the disk, as the kernel has it."""
    pod = daemon.run_pod(daemon.pod_config(annotations={"blockio.resources.beta.kubernetes.io/pod": "Slow"}))
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    controller, name = ("", "io.max") if V2 else ("blkio", "blkio.throttle.read_bps_device")
    cgroup = of_process(daemon.info(container)["pid"])[controller]
    file = Hierarchies.detect().directory(controller, f"{cgroup}/{name}")
    assert file is not None
    said = file.read_text().strip()
    daemon.remove_pod(pod)
    return said.partition(" ")[2]


@pytest.fixture
def warm(registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    """One that has run a container before."""
    with warm_daemon(tmp_path / "warm", registry) as running:
        yield running


def test_classes_of_block_io_are_read_again(warm: Daemon, registry: Registry) -> None:
    daemon, image = warm, registry.reference("busybox")
    disk = max(Path("/sys/block").iterdir(), key=lambda each: int((each / "size").read_text())).name
    classes, text = daemon.place / "classes.yaml", "Classes:\n  Slow:\n    - Devices: [/dev/{}]\n      ThrottleReadBps: {}Mi\n"
    classes.write_text(text.format(disk, 2))
    change(daemon, ("[crio.runtime]\n", f'[crio.runtime]\nblockio_config_file = "{classes}"\n'))
    assert str(2 << 20) in throttle(daemon, image)
    classes.write_text(text.format(disk, 3))
    assert str(2 << 20) in throttle(daemon, image)
    change(daemon)
    assert str(3 << 20) in throttle(daemon, image)
    classes.write_text(text.format(disk, "lots of "))
    assert "classes.yaml" in change(daemon, said="unable to reload configuration")
    assert str(3 << 20) in throttle(daemon, image)


@pytest.mark.skipif(Path("/sys/fs/resctrl/schemata").exists(), reason="the node has resctrl")
def test_classes_of_rdt_are_read_again_and_a_node_without_resctrl_says_so(daemon: Daemon, registry: Registry) -> None:
    classes = daemon.place / "rdt.yaml"
    classes.write_text("partitions: {all: {classes: {gold: {}}}}\n")
    said = change(daemon, ("[crio.runtime]\n", f'[crio.runtime]\nrdt_config_file = "{classes}"\n'))
    assert "RDT is not available" in said
    classes.write_text("partitions: {all: {classes: 3}}\n")
    assert "rdt.yaml" in change(daemon, said="unable to reload configuration")
    classes.write_text("partitions: {}\n")
    change(daemon)


@pytest.mark.skipif(Path("/sys/kernel/security/apparmor/profiles").exists(), reason="tested where the kernel has AppArmor")
def test_a_node_without_apparmor_takes_any_default_profile(daemon: Daemon) -> None:
    assert "apparmor_profile" in change(daemon, ("[crio.runtime]\n", '[crio.runtime]\napparmor_profile = "elsewhere"\n'))
