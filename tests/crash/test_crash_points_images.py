"""kill -9 at every step of the verbs of images: rows and layers agree afterwards, the retry works."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon
from support.faults import killed, struck
from support.images import busybox_layer, file, make_image, write_docker_archive, write_oci_archive

pytestmark = pytest.mark.node

NAME = "example.com/team/app:v1"

ADD = ["criollo.state.images:ImageRows.add:before", "criollo.state.images:ImageRows.add:after"]
KEEP = [
    "criollo.storage.layers:Layers.stage:after",
    "criollo.storage.layers:Layers.commit:before",
    "criollo.storage.layers:Layers.commit:after",
    "criollo.state.images:ImageRows.add_layer:after",
    *ADD,
]
SEAL = ["criollo.images.seals:begin:after", "criollo.images.seals:keep:after"]
PULL = [
    "criollo.registry.client:Registry.manifest:after",
    "criollo.registry.client:Registry.blob:before",
    "criollo.registry.client:Registry.blob:after",
    "criollo.images.pull:_fetch_config:after",
    "criollo.images.progress:Progress.arrived:after",
    *SEAL,
    *KEEP,
]
FLUSH = ["criollo.storage.layers:Layers.sync:before", "criollo.storage.layers:Layers.sync:after"]
READ_LAYOUT = ["criollo.images.load:load_found:before", "criollo.images.load:load_found:after"]
WORKPLACE = "criollo.images.workplace:Workplace.open:after"
LOAD = [*READ_LAYOUT, *SEAL, *KEEP]
IMPORT = ["criollo.images.imported:_commit:before", "criollo.images.imported:_commit:after", *KEEP]
UNTAG = ["criollo.state.images:ImageRows.untag:before", "criollo.state.images:ImageRows.untag:after"]
REMOVE = [
    "criollo.state.images:ImageRows.remove:before",
    "criollo.images.remove:collect_layers:before",
    "criollo.storage.layers:Layers.remove:before",
    "criollo.storage.layers:Layers.remove:after",
    "criollo.state.images:ImageRows.drop_layers:before",
    "criollo.state.images:ImageRows.drop_layers:after",
    "criollo.images.remove:collect_layers:after",
]
POINTS = sorted({*PULL, *FLUSH, *LOAD, WORKPLACE, *IMPORT, *UNTAG, *REMOVE})


@pytest.fixture(autouse=True)
def busybox_alone(daemon: Daemon, image: str) -> Iterator[None]:
    """Each test begins with the one image."""
    daemon.pull(image)
    yield
    daemon.remove_everything()
    for each in daemon.cri.call("ListImages").images:
        if each.repo_tags != [image]:
            remove(daemon, each.id)


def remove(daemon: Daemon, name: str) -> None:
    daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=name)))


def names(daemon: Daemon) -> list[str]:
    return sorted(name for each in daemon.cri.call("ListImages").images for name in each.repo_tags)


def assert_whole(daemon: Daemon) -> None:
    """Each image here has one layer, of its own."""
    kept = set(os.listdir(daemon.root / "layers")) - {"empty"}
    assert len(kept) == len(daemon.cri.call("ListImages").images)
    assert os.listdir(daemon.root / "staging") == []
    assert kept.issuperset(os.listdir(daemon.root / "seals"))


def assert_runs(daemon: Daemon, image: str) -> None:
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(container, "echo", "works") == "works\n"


@pytest.mark.parametrize("point", PULL)
def test_killed_while_an_image_is_pulled(daemon: Daemon, image: str, point: str) -> None:
    remove(daemon, image)
    killed(daemon, point, lambda: daemon.pull(image))
    assert_whole(daemon)
    daemon.pull(image)
    assert_runs(daemon, image)


@pytest.mark.parametrize("point", FLUSH)
def test_killed_while_a_pulled_image_is_flushed(daemon: Daemon, image: str, point: str) -> None:
    remove(daemon, image)
    with struck(daemon, point, "kill"):
        with contextlib.suppress(grpc.RpcError):  # it is answered before
            daemon.pull(image)
        daemon.wait_death()
    daemon.start()
    assert names(daemon) == [image]
    assert_whole(daemon)
    assert_runs(daemon, image)


@pytest.mark.parametrize("point", REMOVE)
def test_killed_while_an_image_is_removed(daemon: Daemon, image: str, point: str) -> None:
    killed(daemon, point, lambda: remove(daemon, image))
    assert_whole(daemon)
    remove(daemon, image)
    assert names(daemon) == []
    daemon.pull(image)
    assert_runs(daemon, image)


@pytest.mark.parametrize(
    ("write", "point"),
    [*((write_oci_archive, point) for point in LOAD), *((write_docker_archive, point) for point in READ_LAYOUT)],
)
def test_killed_while_an_archive_is_loaded(daemon: Daemon, write: Callable[..., Path], point: str, tmp_path: Path) -> None:
    archive = write(tmp_path / "archive.tar", {NAME: make_image([busybox_layer([file("loaded", "")])])})
    killed(daemon, point, lambda: daemon.kpod("load", "-i", archive))
    assert_whole(daemon)
    daemon.kpod("load", "-i", archive)
    assert_runs(daemon, NAME)


@pytest.mark.parametrize("point", IMPORT)
def test_killed_while_a_root_filesystem_is_imported(daemon: Daemon, point: str, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(busybox_layer([file("imported", "")]))
    killed(daemon, point, lambda: daemon.kpod("import", tmp_path / "root.tar", NAME))
    assert_whole(daemon)
    daemon.kpod("import", tmp_path / "root.tar", NAME)
    assert_runs(daemon, NAME)


def test_killed_while_an_image_is_saved(daemon: Daemon, image: str, tmp_path: Path) -> None:
    killed(daemon, WORKPLACE, lambda: daemon.kpod("save", "-o", tmp_path / "saved.tar", image))
    daemon.kpod("save", "-o", tmp_path / "saved.tar", image)  # beside it lay what was cut: the directory is not ours
    assert os.listdir(tmp_path) == ["saved.tar"]


@pytest.mark.parametrize("point", ADD)
def test_killed_while_an_image_is_tagged(daemon: Daemon, image: str, point: str) -> None:
    killed(daemon, point, lambda: daemon.kpod("tag", image, NAME))
    assert names(daemon) in ([image], sorted([NAME, image]))
    daemon.kpod("tag", image, NAME)
    assert names(daemon) == sorted([NAME, image])
    assert_whole(daemon)
    daemon.kpod("untag", image, NAME)


@pytest.mark.parametrize("point", UNTAG)
def test_killed_while_a_name_is_taken_away(daemon: Daemon, image: str, point: str) -> None:
    daemon.kpod("tag", image, NAME)
    killed(daemon, point, lambda: remove(daemon, NAME))
    remove(daemon, NAME)
    assert names(daemon) == [image]
    assert_whole(daemon)
    assert_runs(daemon, image)
