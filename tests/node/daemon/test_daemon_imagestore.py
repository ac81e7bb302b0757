"""`imagestore`: layers and their database on a file system of their own, writable layers on that of the root."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, place, wait_for
from support.image_node import images, pull, remove
from support.registry import Registry
from support.warm import warm_daemon

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def imagestore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with place(Path(tmp_path_factory.mktemp("imagestore"))) as directory:
        yield directory / "images"


@pytest.fixture(scope="module")
def daemon(registry: Registry, imagestore: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"crio.imagestore": str(imagestore)}
    directory = Path(tmp_path_factory.mktemp("node"))
    with warm_daemon(directory, registry, settings=settings) as running:
        remove(running, registry.reference("busybox"))
        yield running


@pytest.fixture
def image(daemon: Daemon, registry: Registry) -> Iterator[str]:
    name = registry.reference("busybox")
    pull(daemon, name)
    yield name
    daemon.remove_everything()
    for left in images(daemon):
        remove(daemon, left.id)


def entries(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def filesystems(daemon: Daemon) -> tuple[Any, Any]:
    answer = daemon.cri.call("ImageFsInfo")
    (of_images,), (of_containers,) = answer.image_filesystems, answer.container_filesystems
    return of_images, of_containers


def test_images_are_there_and_writable_layers_in_the_root(daemon: Daemon, imagestore: Path, image: str) -> None:
    assert len(entries(imagestore / "layers")) == 2  # one beside the empty one
    assert entries(daemon.root / "layers") == []
    assert not (daemon.root / "images.db").exists()
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    daemon.output(container, "sh", "-c", "echo new > /new; rm /etc/group")
    assert daemon.output(container, "cat", "/new") == "new\n"
    assert (daemon.root / "rootfs" / container / "diff/new").read_text() == "new\n"
    assert entries(imagestore / "rootfs") == []


def test_both_file_systems_are_told_apart(daemon: Daemon, imagestore: Path, image: str) -> None:
    of_images, of_containers = filesystems(daemon)
    assert of_images.fs_id.mountpoint == str(imagestore)
    assert of_containers.fs_id.mountpoint == str(daemon.root)
    status = os.statvfs(daemon.root)
    assert of_images.used_bytes.value > 0
    assert of_containers.used_bytes.value <= status.f_blocks * status.f_frsize
    assert of_containers.inodes_used.value > 0


def test_what_is_removed_leaves_both(daemon: Daemon, imagestore: Path, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    daemon.output(container, "touch", "/new")
    daemon.remove_everything()
    remove(daemon, image)
    assert entries(daemon.root / "rootfs") == []
    assert entries(imagestore / "layers") == ["empty"]
    wait_for(lambda: entries(daemon.root / "trash") == entries(imagestore / "trash") == [])


def test_a_killed_daemon_finds_both_again(daemon: Daemon, imagestore: Path, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    daemon.restart(9)
    assert daemon.output(container, "echo", "alive") == "alive\n"
    assert [image in each.repo_tags for each in images(daemon)] == [True]
    daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))


def test_another_daemon_cannot_share_it(daemon: Daemon, imagestore: Path, tmp_path: Path) -> None:
    with place(tmp_path / "other") as directory:
        other = Daemon(directory, settings={"crio.imagestore": str(imagestore)})
        other.start(wait=False)
        assert other.process is not None
        assert other.process.wait(60) != 0
        other.process = None
        assert f"cannot open {imagestore}: process {daemon.pid} owns it" in other.log()


def test_images_that_the_root_has_from_before_are_named_in_the_log(daemon: Daemon, image: str) -> None:
    path = daemon.root / "images.db"
    path.touch()
    try:
        daemon.restart()
        assert "images in the root are not seen while imagestore is set" in daemon.log()
    finally:
        path.unlink()
