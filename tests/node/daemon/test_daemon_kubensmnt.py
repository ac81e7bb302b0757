"""KUBENSMNT: the daemon in a mount namespace that somebody made for it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, running_daemon
from support.registry import Registry

pytestmark = pytest.mark.node


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A directory for bound namespaces, with one that is of another kind; its mounts stay out of new mount namespaces."""
    place = tmp_path / "kubens"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "kubens", str(place)], check=True)
    subprocess.run(["mount", "--make-private", str(place)], check=True)
    for name in ("mnt", "net", "plain"):
        (place / name).touch()
    subprocess.run(["unshare", f"--net={place / 'net'}", "true"], check=True)
    yield place
    for name in ("mnt", "net"):
        subprocess.run(["umount", str(place / name)], capture_output=True, check=False)
    subprocess.run(["umount", str(place)], check=True)


def mount_namespace_of(daemon: Daemon) -> str:
    return os.readlink(f"/proc/{daemon.pid}/ns/mnt")


def test_bound_namespace_is_joined_and_containers_run_in_it(
    bound: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "node"
    place.mkdir()
    with running_daemon(place, registries=registry.registries_conf()) as daemon:
        daemon.stop()
        said = subprocess.run(
            ["unshare", f"--mount={bound / 'mnt'}", "--propagation=slave", "readlink", "/proc/self/ns/mnt"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        monkeypatch.setenv("KUBENSMNT", str(bound / "mnt"))
        daemon.start()
        assert mount_namespace_of(daemon) == said.stdout.strip() != os.readlink("/proc/self/ns/mnt")
        daemon.pull(registry.reference("busybox"))
        pod = daemon.run_pod()
        container = daemon.run_container(pod, daemon.container_config(registry.reference("busybox"), "sleep", "1000"))
        assert daemon.output(container, "echo", "there") == "there\n"
        daemon.remove_pod(pod)
        daemon.stop()
        monkeypatch.delenv("KUBENSMNT")


@pytest.mark.parametrize("name", ["missing", "plain", "net"])
def test_what_is_no_mount_namespace_is_told_and_passed_over(
    bound: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = tmp_path / "node"
    place.mkdir()
    monkeypatch.setenv("KUBENSMNT", str(bound / name))
    with running_daemon(place, registries=registry.registries_conf()) as daemon:
        assert mount_namespace_of(daemon) == os.readlink("/proc/self/ns/mnt")
        assert "cannot join the mount namespace of KUBENSMNT" in daemon.log()
