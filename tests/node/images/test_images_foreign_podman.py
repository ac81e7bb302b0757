"""images.foreign with a store that podman itself has made, by a pull and by a build."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.image_store import image_store
from support.images import file, make_image, push
from support.registry import Registry, run_registry

from criollo.aio.background import Background
from criollo.images.context import Images
from criollo.images.foreign import ForeignImages
from criollo.images.resolve import find
from criollo.images.status import is_pinned, list_images

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not on this machine"),
]

BASE = make_image([[file("base", "of the registry")], [file("second", "layer")]])
BUILT = "localhost/built:v1"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "base", "v1", BASE)
        yield running


@pytest.fixture(scope="module")
def store(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("podman")
    (place / "Containerfile").write_text(f"FROM {registry.reference('base', 'v1')}\nCOPY added /added\nLABEL by=podman\n")
    (place / "added").write_text("by a build")
    podman(place, "pull", "--tls-verify=false", registry.reference("base", "v1"))
    podman(place, "build", "--pull-never", "--network=none", "-t", BUILT, str(place))
    return place / "store"


def podman(place: Path, *words: str) -> None:
    conf = place / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/store"\nrunroot = "{place}/run"\n')
    own = place / "containers.conf"
    own.write_text(f'[engine]\ntmp_dir = "{place}/tmp"\nstatic_dir = "{place}/libpod"\nvolume_path = "{place}/volumes"\n')
    environment = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(conf),
        "CONTAINERS_CONF": str(own),
        "TMPDIR": str(place),
    }
    argv = ["podman", "--events-backend=none", "--cgroup-manager=cgroupfs", *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    for left in ("store/overlay", "run/overlay"):
        subprocess.run(["umount", str(place / left)], capture_output=True, check=False)  # which podman mounts and leaves
    assert done.returncode == 0, done.stderr


def test_what_podman_pulled_and_built_is_here(tmp_path: Path, store: Path, registry: Registry) -> None:
    async def body(images: Images) -> None:
        await images.layers.open()
        images.foreign = ForeignImages([store], images.layers, images.workers)
        async with Background() as tasks:
            tasks.start(images.foreign.follow(), name="follow")
            await images.foreign.refresh()
        pulled, built = find(images, registry.reference("base", "v1")), find(images, BUILT)
        assert pulled is not None
        assert built is not None
        assert (pulled.id, pulled.manifest) == (BASE.id, BASE.manifest)
        assert built.names == (BUILT,)
        assert is_pinned(images, built)
        assert built.layers[: len(pulled.layers)] == pulled.layers
        trees = [images.layers.path(layer) for layer in built.layers]
        assert [name for tree in trees for name in os.listdir(tree)] == ["base", "second", "added"]
        assert (trees[-1] / "added").read_text() == "by a build"
        assert {each.id for each in list_images(images)} >= {pulled.id, built.id}  # and what podman keeps of the steps between

    with image_store(tmp_path) as images:
        asyncio.run(body(images))
