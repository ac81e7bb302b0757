"""Saving with real workers: where it works, what it writes, what a refusal leaves."""

import asyncio
import io
import json
import os
import tarfile  # noqa: TID251 - a second reader of what we packed
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from support.image_store import image_store
from support.images import file, make_image, write_docker_archive

from criollo.errors import CriolloError, Invalid, NotFound
from criollo.images.context import Images
from criollo.images.load import load_images
from criollo.images.save import FORMATS, Shape, archived, save_images
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

NAME = "example.com/a:1"


def run(root: Path, body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    async def inside(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            await load_images(images, write_docker_archive(root / "in.tar", {NAME: make_image([[file("a", "x")]])}))
            await body(images)

    (root / "out").mkdir()
    with image_store(root, workers=Workers()) as images:
        asyncio.run(inside(images))


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_saved_is_loaded_and_nothing_else_is_there(tmp_path: Path, form: str) -> None:
    async def body(images: Images) -> None:
        [before] = images.rows.all()
        await save_images(images, [NAME], tmp_path / "out/it", Shape(form))
        assert os.listdir(tmp_path / "out") == ["it"]
        images.rows.remove(before.id)
        [again] = await load_images(images, tmp_path / "out/it", name=NAME if form == "dir" else "")
        assert again.names == (NAME,)
        assert [(images.layers.path(layer) / "a").read_text() for layer in again.image.layers] == ["x"]

    run(tmp_path, body)


def test_a_stream_is_the_archive_and_its_file_has_no_name(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        async with archived(images, [NAME], Shape("docker-archive")) as fd:
            with os.fdopen(os.dup(fd), "rb") as stream:
                content = stream.read()
            assert not [name for name in os.listdir(tmp_path) if name.endswith(".kpod")]
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            manifest = tar.extractfile("manifest.json")
            assert manifest is not None
            assert json.load(manifest)[0]["RepoTags"] == [NAME]

    run(tmp_path, body)


def test_what_is_large_waits_where_it_is_said(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        images.big_files = tmp_path / "not there"
        with pytest.raises(CriolloError, match="not there"):
            await save_images(images, [NAME], tmp_path / "out/it", Shape("oci-archive"))
        with pytest.raises(CriolloError, match="not there"):
            async with archived(images, [NAME], Shape("oci-archive")):
                pass
        images.big_files.mkdir()
        await save_images(images, [NAME], tmp_path / "out/it", Shape("oci-archive"))
        assert (os.listdir(images.big_files), os.listdir(tmp_path / "out")) == ([], ["it"])

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("names", "shape", "error"),
    [
        ([NAME], Shape("zip"), Invalid),
        ([NAME], Shape("dir", "x"), Invalid),
        ([NAME, NAME], Shape("dir"), Invalid),
        (["example.com/none:1"], Shape("oci-archive"), NotFound),
    ],
)
def test_what_cannot_be_leaves_nothing(tmp_path: Path, names: list[str], shape: Shape, error: type[CriolloError]) -> None:
    async def body(images: Images) -> None:
        with pytest.raises(error):
            await save_images(images, names, tmp_path / "out/it", shape)
        with pytest.raises(CriolloError):
            async with archived(images, names, shape):
                pass
        assert os.listdir(tmp_path / "out") == []

    run(tmp_path, body)
