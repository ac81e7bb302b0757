"""Saving with real workers: where it works, what it writes, what a refusal leaves."""

import asyncio
import gc
import hashlib
import io
import json
import os
import tarfile  # noqa: TID251 - a second reader of what we packed
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec
import pytest
from support import leaks
from support.image_store import image_store
from support.images import file, make_image, write_docker_archive
from support.waiting import cancelled_within

from criollo.errors import CriolloError, Invalid, NotFound
from criollo.images import save
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


def test_an_image_stands_once_in_a_docker_archive_with_all_its_names(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        other = make_image([[file("b", "y")]])
        await load_images(images, write_docker_archive(tmp_path / "other.tar", {"example.com/b:1": other}))
        [image] = [each for each in images.rows.all() if NAME in each.names]
        images.rows.add(msgspec.structs.replace(image, names=(NAME, "example.com/a:2")))
        wanted = [NAME, "example.com/b:1", "example.com/a:2", NAME]
        await save_images(images, wanted, tmp_path / "out/it", Shape("docker-archive"))
        with tarfile.open(tmp_path / "out/it") as tar:
            found = {each.name.removeprefix("./"): tar.extractfile(each) for each in tar if each.isfile()}
            content = {name: stream.read() for name, stream in found.items() if stream is not None}
        entries = json.loads(content["manifest.json"])
        assert [entry["RepoTags"] for entry in entries] == [[NAME, "example.com/a:2"], ["example.com/b:1"]]
        for entry in entries:
            config = content[entry["Config"]]
            assert entry["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
            digests = [f"sha256:{hashlib.sha256(content[layer]).hexdigest()}" for layer in entry["Layers"]]
            assert json.loads(config)["rootfs"]["diff_ids"] == digests
        assert len(await load_images(images, tmp_path / "out/it")) == 2

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


def test_who_leaves_while_the_file_of_a_stream_is_begun_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(images: Images) -> None:
        async def stream() -> None:
            async with archived(images, [NAME], Shape("oci-archive")):
                pass

        before = leaks.descriptors()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            await cancelled_within(monkeypatch, save, "anonymous", stream())
            gc.collect()
        assert (leaks.new_descriptors(before), warned) == ([], [])

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


def test_an_image_is_added_to_a_layout_and_replaces_its_name_there(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        out, adds = tmp_path / "out/it", Shape("oci-dir", "one", adds=True)
        await save_images(images, [NAME], out, adds)
        blobs = {path.name: path.stat().st_ino for path in (out / "blobs/sha256").iterdir()}
        for shape in (adds._replace(label="two"), adds, adds._replace(label="")):
            await save_images(images, [NAME], out, shape)
        entries = json.loads((out / "index.json").read_text())["manifests"]
        names = [each["annotations"]["org.opencontainers.image.ref.name"] for each in entries]
        assert names == ["two", "one", NAME]
        again = {path.name: path.stat().st_ino for path in (out / "blobs/sha256").iterdir()}
        assert again.keys() == blobs.keys()
        manifest = entries[0]["digest"].partition(":")[2]
        assert all(again[name] == blobs[name] for name in blobs if name != manifest)
        assert os.listdir(tmp_path / "out") == ["it"]

    run(tmp_path, body)


def test_what_is_no_layout_is_not_added_to(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        (tmp_path / "out/it").mkdir()
        (tmp_path / "out/it/mine").write_text("mine")
        with pytest.raises(Invalid, match="an OCI layout"):
            await save_images(images, [NAME], tmp_path / "out/it", Shape("oci-dir", adds=True))
        for names, form in (([NAME], "dir"), ([NAME, NAME], "oci-dir")):
            with pytest.raises(Invalid, match="one image as oci-dir"):
                await save_images(images, names, tmp_path / "out/new", Shape(form, adds=True))
        assert os.listdir(tmp_path / "out") == ["it"]
        assert os.listdir(tmp_path / "out/it") == ["mine"]

    run(tmp_path, body)
