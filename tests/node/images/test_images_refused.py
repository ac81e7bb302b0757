"""A file that is no image is refused in words that name it, and nothing is left of it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.image_store import image_store
from support.images import file, make_image, write_oci_layout

from criollo.errors import CriolloError, Damaged, Invalid
from criollo.images.context import Images
from criollo.images.imported import ImportWish, import_image
from criollo.images.load import load_images
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node


def text(path: Path) -> None:
    path.write_text("no tar " * 200)


def cut(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b\x08 broken")


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (text, Damaged, "cannot read {path}: it is no tar, or broken off (*; make it again"),
        (cut, Damaged, "cannot read {path}: it is no tar, or broken off (*; make it again"),
        (Path.mkdir, Invalid, "path: got '{path}', expected a tar, in a regular file"),
        (os.mkfifo, Invalid, "path: got '{path}', expected a tar, in a regular file"),
        (device, Invalid, "path: got '{path}', expected a tar, in a regular file"),
        (lambda path: None, Invalid, "path: got '{path}', expected a tar (No such file or directory)"),
    ],
)
def test_what_is_no_root_filesystem_is_not_imported(
    tmp_path: Path, make: Callable[[Path], None], error: type[CriolloError], said: str
) -> None:
    path = tmp_path / "it"
    make(path)
    check(tmp_path, lambda images: import_image(images, path, ImportWish()), error, said.format(path=path))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (text, Damaged, "cannot read {path}: it is no image archive, or broken off (*; make it again"),
        (Path.mkdir, Invalid, "{path}: archive: got 'neither index.json nor manifest.json in it', expected an OCI layout, *"),
        (os.mkfifo, Invalid, "path: got '{path}', expected an image archive or layout, in a regular file or a directory"),
        (lambda path: None, Invalid, "path: got '{path}', expected an image archive or layout (No such file or directory)"),
    ],
)
def test_what_is_no_archive_is_not_loaded(
    tmp_path: Path, make: Callable[[Path], None], error: type[CriolloError], said: str
) -> None:
    path = tmp_path / "it"
    make(path)
    check(tmp_path, lambda images: load_images(images, path), error, said.format(path=path))


@pytest.mark.parametrize("size", [10, 8 << 20])
def test_a_changed_layer_is_not_its_digest_whatever_that_made_of_it(tmp_path: Path, size: int) -> None:
    """No gzip any more, and no tar either: who unpacks it ends before a large one has been compared."""
    image = make_image([[file("f", os.urandom(size))]])
    blob = write_oci_layout(tmp_path / "it", {"example.com/a:1": image}) / f"blobs/{image.layers[0].digest.replace(':', '/')}"
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    said = f"blob {image.layers[0].digest} is not what its digest says; make the archive again"
    check(tmp_path, lambda images: load_images(images, tmp_path / "it"), Damaged, said)


def check(root: Path, verb: Callable[[Images], Awaitable[object]], error: type[CriolloError], said: str) -> None:
    async def body(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            with pytest.raises(error) as told:
                await verb(images)
            front, _, end = said.partition("*")
            assert str(told.value).startswith(front)
            assert str(told.value).endswith(end)
            assert os.listdir(root / "store/staging") == []
            assert os.listdir(root / "store/layers") == ["empty"]

    (root / "store").mkdir()
    with image_store(root / "store", workers=Workers()) as images:
        asyncio.run(body(images))
