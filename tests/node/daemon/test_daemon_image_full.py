"""Disks that fill up while an image comes, at each phase of the pull: it is told, nothing is left, and the next pull works."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.bad_registry import BadRegistry, run_bad_registry
from support.daemon import Daemon, place, wait_for
from support.faulty_daemon import fill
from support.image_node import Gate, images, layers, nothing_left, pull, pull_request, registries_conf, remove
from support.images import file, make_image

from criollo.state.ballast import BYTES

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def bad() -> Iterator[BadRegistry]:
    with run_bad_registry() as running:
        running.add("app", "v1", IMAGE)
        yield running


@contextlib.contextmanager
def small_disk(top: Path, mounted: Path) -> Iterator[None]:
    """An ext4 of 32 MiB, nothing of it reserved for root; what is mounted is the daemon's to unmount, with all of its place."""
    with (top / "disk").open("wb") as sparse:
        sparse.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", top / "disk"], check=True)
    mounted.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", top / "disk", mounted], check=True)
    yield


@pytest.fixture(scope="module")
def daemon(bad: BadRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose root is a small disk."""
    top = tmp_path_factory.mktemp("full")
    with place(top / "node") as directory:
        daemon = Daemon(directory, registries=registries_conf(bad))
        with small_disk(top, daemon.root):
            try:
                yield daemon.start()
                assert daemon.stop() == 0
            finally:
                daemon.stop(signal.SIGKILL)


@contextlib.contextmanager
def full(daemon: Daemon) -> Iterator[None]:
    """Leave no byte free while the block runs, nor the room that the daemon holds back."""
    fillers: list[Path] = []
    ballast = daemon.root / "ballast"
    while not fillers or ballast.exists():  # the daemon may make it again while we fill
        ballast.unlink(missing_ok=True)
        fillers.append(daemon.root / f"filler-{len(fillers)}")
        fill(fillers[-1])
    try:
        yield
    finally:
        for each in fillers:
            each.unlink()


IMAGE = make_image([[file("base", "base" * 1000)], [file("top", b"x" * 1_000_000)]], compression="none")


def refused_pull(daemon: Daemon, bad: BadRegistry) -> str:
    said = told(daemon.cri.begin("PullImage", pull_request(bad.reference("app", "v1"))))
    nothing_left(daemon)
    assert images(daemon) == []
    return said


def told(pulling: "grpc.Future") -> str:
    with pytest.raises(grpc.RpcError) as caught:
        pulling.result()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value
    return str(caught.value.details())


def the_next_pull_works(daemon: Daemon, bad: BadRegistry) -> None:
    pulled = pull(daemon, bad.reference("app", "v1"))
    daemon.restart()
    assert [each.id for each in images(daemon)] == [pulled]
    assert len(layers(daemon)) == 2
    remove(daemon, pulled)
    nothing_left(daemon)


def test_before_the_first_byte(daemon: Daemon, bad: BadRegistry) -> None:
    with full(daemon):
        assert "o space left" in refused_pull(daemon, bad)
    the_next_pull_works(daemon, bad)


def test_in_the_middle_of_a_layer(daemon: Daemon, bad: BadRegistry) -> None:
    gate = Gate()
    bad.break_at(f"/blobs/{IMAGE.layers[1].digest}", gate.fault(), times=1)
    pulling = daemon.cri.begin("PullImage", pull_request(bad.reference("app", "v1")))
    wait_for(lambda: len(layers(daemon)) == 1)
    with full(daemon):
        gate.open()
        assert "o space left" in told(pulling)
        nothing_left(daemon)
        assert images(daemon) == []
    the_next_pull_works(daemon, bad)


@contextlib.contextmanager
def filling_at(daemon: Daemon, point: str, action: str = "fill") -> Iterator[None]:
    """A daemon whose disk fills up in the moment when it comes to this point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRIOLLO_TEST_FILL", str(daemon.root / "filler"))
        daemon.stop()
        daemon.start(fault=f"{point}:{action}")
    try:
        yield
    finally:
        (daemon.root / "filler").unlink()


MAKING = [
    "criollo.storage.layers:Layers.stage:after",
    "criollo.images.seals:begin:after",
    "criollo.images.seals:keep:before",
    "criollo.images.seals:keep:after",
    "criollo.storage.layers:Layers.commit:before",
    "criollo.storage.layers:Layers.commit:after",
]
ROWS = ["criollo.images.pull:record:before", "criollo.state.images:ImageRows.add:before"]
FLUSH = [
    "criollo.storage.layers:Layers.sync:before",
    "criollo.storage.layers:Layers.sync:after",
    "criollo.state.images:ImageRows.flushed:before",
]


@pytest.mark.parametrize("point", MAKING)
def test_while_layers_are_made(daemon: Daemon, bad: BadRegistry, point: str) -> None:
    """The upper layer comes when the disk is full: what was there before may be finished."""
    gate = Gate()
    with filling_at(daemon, point):
        bad.break_at(f"/blobs/{IMAGE.layers[1].digest}", gate.fault(), times=1)
        pulling = daemon.cri.begin("PullImage", pull_request(bad.reference("app", "v1")))
        wait_for((daemon.root / "filler").exists)
        gate.open()
        assert "o space left" in told(pulling)
        nothing_left(daemon)
        assert images(daemon) == []
    the_next_pull_works(daemon, bad)


@pytest.mark.parametrize("point", [*ROWS, *FLUSH])
def test_there_is_room_held_back_for_the_rows(daemon: Daemon, bad: BadRegistry, point: str) -> None:
    with filling_at(daemon, point):
        pulled = pull(daemon, bad.reference("app", "v1"))
        wait_for((daemon.root / "filler").exists)
        daemon.restart(signal.SIGKILL)
        assert [each.id for each in images(daemon)] == [pulled]
        remove(daemon, pulled)
        nothing_left(daemon)
    the_next_pull_works(daemon, bad)


@pytest.mark.parametrize("point", ["criollo.registry.client:Registry.manifest:after", *MAKING, *ROWS, *FLUSH])
def test_killed_when_the_disk_has_filled_up(daemon: Daemon, bad: BadRegistry, point: str) -> None:
    """It starts on the full disk, where images are whole or absent; room that is made then is enough to go on."""
    with filling_at(daemon, point, "fill-kill"):
        with contextlib.suppress(grpc.RpcError):  # a flush comes after the answer
            pull(daemon, bad.reference("app", "v1"))
        daemon.wait_death()
        daemon.start()
        assert len(images(daemon)) == (1 if point in FLUSH else 0)
        assert len(layers(daemon)) == (2 if point in FLUSH else 0)
        assert os.listdir(daemon.root / "staging") == []
        for each in images(daemon):
            remove(daemon, each.id)
        nothing_left(daemon)
    the_next_pull_works(daemon, bad)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_images_apart_on_a_full_disk_can_be_removed(bad: BadRegistry, tmp_path: Path, restarted: bool) -> None:
    """Only the disk of `imagestore` is full: its database, too, has room held back beside it."""
    with place(tmp_path / "node") as directory:
        mounted = directory / "images"
        daemon = Daemon(directory, registries=registries_conf(bad), settings={"crio.imagestore": str(mounted)})
        with small_disk(tmp_path, mounted):
            try:
                daemon.start()
                pulled = pull(daemon, bad.reference("app", "v1"))
                wait_for(lambda: (mounted / "ballast").exists() and (mounted / "ballast").stat().st_blocks * 512 >= BYTES)
                fill(mounted / "filler")
                if restarted:
                    daemon.restart(signal.SIGKILL)
                remove(daemon, pulled)
                assert images(daemon) == []
                (mounted / "filler").unlink()
                assert pull(daemon, bad.reference("app", "v1")) == pulled
                assert daemon.stop() == 0
            finally:
                daemon.stop(signal.SIGKILL)
