"""What containers get unasked, on pure version 2: cgroups that may be written, and the rules of devices there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cri import pb
from support.daemon import Daemon

handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


@pytest.fixture(scope="module")
def daemon(daemon_with: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    specs = tmp_path_factory.mktemp("cdi")
    node = {"path": "/dev/fuse0", "hostPath": "/dev/fuse", "permissions": "r", "fileMode": 0o666}
    device = {"name": "0", "containerEdits": {"deviceNodes": [node]}}
    (specs / "v.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "v.com/d", "devices": [device]}))
    allowed = {
        f"crio.runtime.runtimes.{name}.allowed_annotations": ["cgroup2-mount-hierarchy-rw.crio.io"] for name in ("crun", "runc")
    }
    return daemon_with(**{"crio.runtime.cdi_spec_dirs": [str(specs)], **allowed})


@pytest.fixture(autouse=True)
def _clean(daemon: Daemon, no_leaks: Callable[[Daemon], None]) -> None:
    no_leaks(daemon)


@handlers
def test_cgroups_may_be_written_with_leave_only(daemon: Daemon, image: str, handler: str) -> None:
    for key, value, written in (
        ("cgroup2-mount-hierarchy-rw.crio.io", "true", True),
        ("io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw", "true", True),
        ("cgroup2-mount-hierarchy-rw.crio.io", "yes", False),
    ):
        pod = daemon.run_pod(daemon.pod_config(annotations={key: value}), handler=handler)
        container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
        assert (daemon.exec(container, "mkdir", "/sys/fs/cgroup/x").exit_code == 0) is written
        assert not Path("/sys/fs/cgroup/x").exists()
        daemon.remove_pod(pod)


@handlers
def test_an_init_system_writes_its_cgroups_and_cannot_lift_its_limits(daemon: Daemon, image: str, handler: str) -> None:
    (daemon.place / "init").write_text("#!/bin/sh\nexec sleep 1000\n")
    (daemon.place / "init").chmod(0o755)
    config = daemon.container_config(image, "/bin/systemd")
    config.mounts.add(container_path="/bin/systemd", host_path=str(daemon.place / "init"))
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert daemon.exec(container, "mkdir", "/sys/fs/cgroup/init.scope").exit_code == 0
    assert daemon.exec(container, "sh", "-c", "echo max > /sys/fs/cgroup/memory.max").exit_code != 0
    assert daemon.output(container, "cat", "/sys/fs/cgroup/memory.max").strip() == str(64 << 20)


@handlers
def test_a_cdi_device_may_be_opened_as_its_spec_says(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.CDI_devices.append(pb.CDIDevice(name="v.com/d=0"))
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert daemon.exec(container, "sh", "-c", ": < /dev/fuse0").exit_code == 0
    assert daemon.exec(container, "sh", "-c", ": > /dev/fuse0").exit_code != 0
