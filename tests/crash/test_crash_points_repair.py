"""kill -9 at every step of a repair: the layer is the damaged or the whole one, whoever runs goes on, the next repair works."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cri import pb
from support.daemon import CRIO, Daemon
from support.faults import killed

pytestmark = pytest.mark.node

POINTS = [
    "criollo.images.repair:stage_layer:before",
    "criollo.images.repair:stage_layer:after",
    "criollo.storage.layers:Layers.sync:after",
    "criollo.images.retired:exchange:before",
    "criollo.linux.files:_fill:after",  # of who uses the damaged layer
    "criollo.images.retired:exchange:after",
    "criollo.state.images:ImageRows.add_layer:before",
    "criollo.state.images:ImageRows.add_layer:after",
]


@pytest.fixture(autouse=True)
def busybox_alone(daemon: Daemon, image: str) -> Iterator[None]:
    """Each test begins with the one image, on the disk: no flush comes between."""
    daemon.pull(image)
    daemon.restart()
    yield
    daemon.remove_everything()
    daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=image)))


def repair(daemon: Daemon) -> str:
    argv = [str(CRIO), "-c", str(daemon.place / "crio.conf"), "-d", "", "check", "--repair"]
    environ = {**os.environ, **daemon.registries}
    return subprocess.run(argv, capture_output=True, text=True, env=environ, check=True, timeout=120).stdout


def layer_of(daemon: Daemon) -> Path:
    (layer,) = (path for path in (daemon.root / "layers").iterdir() if path.name != "empty")
    return layer


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_a_layer_is_repaired(daemon: Daemon, image: str, point: str) -> None:
    runs = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    whole = sorted(os.listdir(layer_of(daemon)))
    (layer_of(daemon) / "stranger").touch()
    killed(daemon, point, lambda: repair(daemon))
    assert sorted(os.listdir(layer_of(daemon))) in (whole, sorted([*whole, "stranger"]))
    assert os.listdir(daemon.root / "staging") == []
    assert daemon.output(runs, "echo", "goes on") == "goes on\n"
    repair(daemon)
    assert sorted(os.listdir(layer_of(daemon))) == whole
    later = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    assert daemon.output(later, "echo", "works") == "works\n"
    daemon.remove_everything()
    daemon.restart()
    assert not (daemon.root / "retired").exists() or os.listdir(daemon.root / "retired") == []
