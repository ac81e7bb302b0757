"""Disks that are full: said with the right code, what runs goes on, and space that was freed is enough to go on from."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.footprint import footprint, left
from support.registry import Registry

pytestmark = pytest.mark.node


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """An ext4 of 24 MiB, nothing of it reserved for root."""
    image, mounted = directory / "image", directory / "mounted"
    mounted.mkdir()
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.fixture(scope="module")
def shared(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose root is on a small disk."""
    directory = tmp_path_factory.mktemp("full")
    with (
        small_disk(directory) as disk,
        running_daemon(
            directory / "node",
            registries=registry.registries_conf(),
            settings={"crio.root": str(disk / "root")},
            tuned={"sweep_s": 0.3},
        ) as running,
    ):
        running.pull(registry.reference("busybox"))
        running.root = disk / "root"
        yield running


@contextlib.contextmanager
def full(disk: Path) -> Iterator[Path]:
    """Leave no byte free, nor the room that the daemon holds back, while the block runs or until the file is removed."""
    filler = disk / "filler"
    (disk / "root/ballast").unlink(missing_ok=True)
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield filler
    finally:
        filler.unlink(missing_ok=True)


@contextlib.contextmanager
def full_run_state(daemon: Daemon) -> Iterator[None]:
    """Shrink the tmpfs of the run state to what it holds."""

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(daemon.place)], check=True)

    status = os.statvfs(daemon.place)
    resize((status.f_blocks - status.f_bfree) * status.f_frsize)
    try:
        yield
    finally:
        resize(1 << 30)


def refused_create(daemon: Daemon, pod: str, image: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        daemon.create(pod, daemon.container_config(image, "sleep", "1000", name="new"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return str(caught.value.details())


def test_a_full_disk_is_told_and_costs_nothing_that_runs(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    before = footprint(daemon)
    with full(daemon.root.parent):
        assert "free some" in refused_create(daemon, pod, image)
        assert left(daemon, before) == {}
        assert daemon.output(container, "echo", "runs") == "runs\n"
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="new"))


def test_an_exit_on_a_full_disk_is_told_and_kept(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    with full(daemon.root.parent):
        os.kill(daemon.info(container)["pid"], signal.SIGKILL)
        daemon.wait_state(container, pb.CONTAINER_EXITED)
    before = daemon.status(container)
    daemon.restart(signal.SIGKILL)
    assert daemon.status(container) == before


def test_removing_makes_room_on_a_full_disk(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    script = "dd if=/dev/zero of=/big bs=1M count=8; exec sleep 1000"
    container = daemon.run_container(pod, daemon.container_config(image, "sh", "-c", script))
    wait_for(lambda: "8+0 records out" in daemon.container_log(container))
    with full(daemon.root.parent):
        refused_create(daemon, pod, image)
        daemon.stop_container(container)
        with contextlib.suppress(grpc.RpcError):  # its row may have to wait for the room it makes
            daemon.remove_container(container)
        wait_for(lambda: list(daemon.cri.call("ListContainers").containers) == [])
        wait_for(lambda: os.statvfs(daemon.root).f_bavail * 4096 > 4 << 20)
        daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="new"))


def test_a_daemon_starts_on_a_full_disk(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    daemon.stop()
    with full(daemon.root.parent) as filler:
        daemon.start()
        assert daemon.status(container).state == pb.CONTAINER_RUNNING
        filler.unlink()
        daemon.stop_container(container)
    daemon.restart()
    assert daemon.status(container).exit_code == 137


def test_a_full_run_state_is_told_and_leaves_nothing(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    before = footprint(daemon)
    with full_run_state(daemon):
        refused_create(daemon, pod, image)
        with pytest.raises(grpc.RpcError) as caught:
            daemon.run_pod()
        assert "no space left on device" in caught.value.details().lower()  # ours or the plugin's word
        assert left(daemon, before) == {}
        daemon.stop_container(container)
        daemon.remove_container(container)
    daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="new"))
