"""images.artifacts: blobs as layers of the store. Pulling and mounting: tests/node/daemon/test_daemon_artifacts.py."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from support.artifacts import make_artifact
from support.image_store import add_image, image_store

from criollo.errors import Damaged, Exhausted, NotFound, Unsupported
from criollo.images.artifacts import blob_name, blob_path, is_blob, mountable, plan_blobs, require_image
from criollo.images.commit import add_layer, feed_from_file
from criollo.images.context import Images
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.state.images import LayerRow

MADE = make_artifact({"a": b"1", "b/c": b"2", "again": b"1"})


def manifest() -> Manifest:
    found = decode_manifest(MADE.manifest, artifacts=True)
    assert isinstance(found, Manifest)
    return found


def artifact() -> Image:
    return Image(
        id=ImageId(MADE.id),
        manifest_digest=MADE.digest,
        manifest=MADE.manifest,
        config=b"{}",
        layers=tuple(blob.name for blob in plan_blobs(manifest())),
        size_bytes=0,
        pulled_ns=1,
    )


def test_every_blob_is_planned_once_as_it_is() -> None:
    blobs = plan_blobs(manifest())
    assert [str(blob.diff_id) for blob in blobs] == [
        layer for layer in dict.fromkeys(str(each.digest) for each in manifest().layers)
    ]
    assert all(blob.as_is and not blob.below for blob in blobs)


def test_the_name_of_a_blob_is_its_own_and_no_layers() -> None:
    digest = Digest.of(b"1")
    assert blob_name(digest) != digest.hex[:32]
    assert is_blob(LayerRow(blob_name(digest), str(digest), 1, 2))
    assert not is_blob(LayerRow(digest.hex[:32], str(digest), 1, 2))


def test_an_artifact_is_known_by_its_id_and_does_not_run(tmp_path: Path) -> None:
    assert artifact().is_artifact
    with pytest.raises(Unsupported, match="mount it as a volume"):
        require_image(artifact())
    with image_store(tmp_path) as images:
        image = add_image(images, "a" * 64)
        assert require_image(image) is image


def test_files_are_found_by_sub_path() -> None:
    assert [blob.name for blob in mountable(artifact())] == ["a", "b/c", "again"]
    assert [blob.name for blob in mountable(artifact(), "b")] == ["c"]
    with pytest.raises(NotFound):
        mountable(artifact(), "x")
    index = b'{"schemaVersion":2,"manifests":[]}'
    with pytest.raises(Unsupported, match="index"):
        mountable(msgspec.structs.replace(artifact(), manifest=index))


async def stored(images: Images, content: bytes, place: Path) -> None:
    """The first blob, fed from a file with this content."""
    await images.layers.open()
    (blob, *_) = plan_blobs(manifest())
    place.write_bytes(content)
    source = os.open(place, os.O_RDONLY)
    try:
        await add_layer(images, blob, lambda fd: feed_from_file(source, blob.descriptor.digest, fd))
    finally:
        os.close(source)


def test_a_blob_is_stored_as_a_file_that_nobody_executes(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        asyncio.run(stored(images, b"1", tmp_path / "source"))
        path = blob_path(images, Digest.of(b"1"))
        assert path.read_bytes() == b"1"
        assert path.stat().st_mode & 0o777 == 0o444
        (finished,) = images.finished.values()
        assert is_blob(finished.row)
        assert finished.row.size_bytes == 1


def test_a_wrong_or_large_blob_is_not_stored(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        with pytest.raises(Damaged):
            asyncio.run(stored(images, b"2", tmp_path / "source"))
        images.layer_limit_bytes = 0
        with pytest.raises(Exhausted, match="limit of this node"):
            asyncio.run(stored(images, b"1", tmp_path / "source"))
        assert images.layers.names() == set()
        assert os.listdir(tmp_path / "staging") == []
