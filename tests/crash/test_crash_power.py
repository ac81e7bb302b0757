"""Images and the disk: what a kill leaves to the next start, and what a power cut takes."""

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.footprint import footprint, left
from support.registry import Registry
from support.stores import disk

from criollo.linux import mount
from criollo.state.database import checkpoint

pytestmark = pytest.mark.node


@pytest.fixture
def daemon(registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path / "node", registries=registry.registries_conf()) as running:
        before = footprint(running)
        yield running
        running.remove_everything()
        assert left(running, before) == {}


def unflushed(daemon: Daemon) -> dict[str, str]:
    """Layers that may not be on the disk, with the boot that wrote them."""
    with contextlib.closing(sqlite3.connect(daemon.root / "images.db", timeout=5)) as database:
        return dict(database.execute("SELECT layer, boot FROM unflushed").fetchall())


def layers(daemon: Daemon) -> list[str]:
    return sorted(path.name for path in (daemon.root / "layers").iterdir() if path.name != "empty")


def images(daemon: Daemon) -> list[str]:
    return [image.id for image in daemon.cri.call("ListImages").images]


def test_a_pull_is_on_the_disk_soon(daemon: Daemon, registry: Registry) -> None:
    daemon.pull(registry.reference("busybox"))
    wait_for(lambda: not unflushed(daemon))


def test_a_kill_after_a_pull_costs_nothing(daemon: Daemon, registry: Registry) -> None:
    image = daemon.pull(registry.reference("busybox"))
    daemon.kill()
    daemon.start()
    assert images(daemon) == [image]
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "echo", "whole") == "whole\n"
    wait_for(lambda: not unflushed(daemon))


def test_after_a_power_cut_an_image_that_was_not_flushed_is_pulled_again(daemon: Daemon, registry: Registry) -> None:
    reference = registry.reference("busybox")
    image = daemon.pull(reference)
    daemon.stop()
    [layer] = layers(daemon)
    with contextlib.closing(sqlite3.connect(daemon.root / "images.db")) as database:
        database.execute("INSERT INTO unflushed VALUES (?, 'another boot')", (layer,))
        database.commit()
    (daemon.root / "layers" / layer / "bin/busybox").write_bytes(b"")  # as delayed allocation leaves it
    daemon.start()
    assert (images(daemon), layers(daemon), unflushed(daemon)) == ([], [], {})
    assert "pull it again" in daemon.log()
    assert daemon.pull(reference) == image
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "echo", "whole") == "whole\n"


# A disk as a power cut leaves it: a copy of what had been written to it by then, mounted in its place. The file system under
# test keeps its files in memory until they are flushed, but not names and sizes.


class Disk:
    """An ext4 whose image lies on a btrfs, where a copy is one step."""

    def __init__(self, place: Path) -> None:
        self.image, self.mounted = place / "image", place / "mounted"
        self.mounted.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.mounted], check=True)

    def unmount(self) -> None:
        for target in mount.below(self.mounted):
            mount.unmount(target, detach=True)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """The power goes at the beginning of the block, and is back at its end; the block ends what ran."""
        copy = self.image.with_name("copy")
        subprocess.run(["cp", "--reflink=always", self.image, copy], check=True)
        yield
        self.unmount()
        copy.rename(self.image)
        self._mount()


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Disk]:
    with disk("btrfs") as place:
        made = Disk(place)
        try:
            yield made
        finally:
            made.unmount()


@contextlib.contextmanager
def on(power: Disk, registry: Registry, directory: Path, **tuned: float) -> Iterator[Daemon]:
    settings = {"crio.root": str(power.mounted / "root")}
    with running_daemon(directory, registries=registry.registries_conf(), settings=settings, tuned=tuned) as running:
        running.root = power.mounted / "root"
        yield running


def cut(power: Disk, daemon: Daemon) -> None:
    with power.cut():
        daemon.kill()
    daemon.tuned = {"boot": 2}


def test_the_power_goes_before_a_pull_is_on_the_disk(power: Disk, registry: Registry, tmp_path: Path) -> None:
    with on(power, registry, tmp_path / "node", boot=1, flushes=0) as daemon:
        image = daemon.pull(registry.reference("busybox"))
        [layer] = layers(daemon)
        checkpoint(daemon.root / "images.db")  # the rows, and with them names of all files, are on the disk
        cut(power, daemon)
        assert unflushed(daemon) == {layer: "boot 1"}
        assert (daemon.root / "layers" / layer / "bin/busybox").stat().st_size == 0
        daemon.start()
        assert (images(daemon), layers(daemon)) == ([], [])
        assert daemon.pull(registry.reference("busybox")) == image
        container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
        assert daemon.output(container, "echo", "whole") == "whole\n"


def test_the_power_goes_after_a_flush(power: Disk, registry: Registry, tmp_path: Path) -> None:
    with on(power, registry, tmp_path / "node", boot=1) as daemon:
        image = daemon.pull(registry.reference("busybox"))
        wait_for(lambda: "images are on the disk" in daemon.log())  # and the row that says so
        cut(power, daemon)
        daemon.start()
        assert images(daemon) == [image]
        container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
        assert daemon.output(container, "echo", "whole") == "whole\n"


def test_the_power_goes_after_a_load(power: Disk, registry: Registry, tmp_path: Path) -> None:
    with on(power, registry, tmp_path / "node", boot=1) as daemon:
        image = daemon.pull(registry.reference("busybox"))
        archive = tmp_path / "archive.tar"
        daemon.kpod("save", "-o", archive, registry.reference("busybox"))
        daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=image)))
        daemon.kpod("load", "-i", archive)
        cut(power, daemon)
        daemon.start()
        [loaded] = images(daemon)
        container = daemon.run_container(daemon.run_pod(), daemon.container_config(loaded, "sleep", "1000"))
        assert daemon.output(container, "echo", "whole") == "whole\n"
