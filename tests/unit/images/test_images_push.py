"""images.push where nothing has to be packed: what the registry has already, in another dress, and artifacts."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import images as made
from support import leaks
from support.image_store import NOT_NEEDED, image_store
from support.upload_registry import UploadRegistry, run_upload_registry
from support.waiting import cancelled_within

from criollo.errors import CriolloError, Denied, Invalid, NotFound
from criollo.images import push as push_module
from criollo.images.artifacts import blob_path, plan_blobs
from criollo.images.context import Images
from criollo.images.progress import LayerProgress
from criollo.images.push import Pushed, PushWish, push_image
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest, chain_ids
from criollo.oci.image_spec import DOCKER_MANIFEST, Manifest, decode_manifest
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Rule
from criollo.state.images import LayerRow
from criollo.storage.layers import layer_name

IMAGE = made.make_image([[made.file("a", "1")], [made.file("b", "2")]])


@pytest.fixture
def taking() -> Iterator[UploadRegistry]:
    with run_upload_registry() as running:
        yield running


def keep(images: Images, image: made.Image, name: str) -> Image:
    """The rows of an image as a pull leaves them."""
    names = [layer_name(chain) for chain in chain_ids([Digest(diff_id) for diff_id in image.diff_ids])]
    for name_of_layer, diff_id in zip(names, image.diff_ids, strict=True):
        images.rows.add_layer(LayerRow(name_of_layer, diff_id, 1, 1))
    return images.rows.add(
        Image(
            id=ImageId(image.id),
            names=(f"{name}:v1",),
            digests=(f"{name}@{image.digest}",),
            manifest_digest=image.digest,
            manifest=image.manifest,
            config=image.config,
            layers=tuple(names),
            size_bytes=0,
            pulled_ns=1,
        )
    )


def push(root: Path, taking: UploadRegistry, image: made.Image, *, form: str = "", target: str = "team/app:v2") -> Pushed:
    with image_store(root) as images:
        images.registry.use(Hosts([Rule(prefix=taking.host, location=taking.host, insecure=True)]))
        images.hosts = images.registry.hosts

        async def main() -> Pushed:
            try:
                keep(images, image, f"{taking.host}/base/image")
                return await push_image(images, image.id, PushWish(f"{taking.host}/{target}", form=form))
            finally:
                await images.registry.close()

        return asyncio.run(main())


def have(taking: UploadRegistry, image: made.Image, repository: str) -> None:
    taking.blobs |= {f"{repository} {layer.digest}": layer.blob for layer in image.layers}


@pytest.mark.parametrize("repository", ["team/app", "base/image"])
def test_what_is_there_keeps_its_digest_and_is_not_sent(tmp_path: Path, taking: UploadRegistry, repository: str) -> None:
    have(taking, IMAGE, repository)
    pushed = push(tmp_path, taking, IMAGE)
    assert (pushed.digest, pushed.image_id, pushed.anew) == (IMAGE.digest, IMAGE.id, 0)
    assert pushed.sent_bytes == len(IMAGE.config)
    assert taking.manifests == {"team/app v2": IMAGE.manifest}


def test_another_dress_is_another_manifest_of_the_same_blobs(tmp_path: Path, taking: UploadRegistry) -> None:
    have(taking, IMAGE, "team/app")
    pushed = push(tmp_path, taking, IMAGE, form="docker")
    document = json.loads(taking.manifests["team/app v2"])
    assert pushed.image_id == IMAGE.id
    assert document["mediaType"] == DOCKER_MANIFEST
    assert [each["digest"] for each in document["layers"]] == [layer.digest for layer in IMAGE.layers]
    assert {each["mediaType"] for each in document["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}


def test_encrypted_layers_are_not_sent_in_the_clear(tmp_path: Path, taking: UploadRegistry) -> None:
    sealed = dataclasses.replace(IMAGE, manifest=IMAGE.manifest.replace(b"tar+gzip", b"tar+gzip+encrypted"))
    with pytest.raises(Denied, match="in the clear"):
        push(tmp_path, taking, sealed)
    assert taking.blobs == {}


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (PushWish("HOST/UPPER"), Invalid),
        (PushWish("HOST/a@sha256:" + "0" * 64), Invalid),
        (PushWish("HOST/a:b", form="rar"), Invalid),
        (PushWish("HOST/a:b", compression="xz"), Invalid),
        (PushWish("HOST/a:b", form="docker", compression="zstd"), Invalid),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_anything_is_sent(
    tmp_path: Path, taking: UploadRegistry, wish: PushWish, error: type[CriolloError]
) -> None:
    with image_store(tmp_path) as images:
        keep(images, IMAGE, "example.com/x")
        with pytest.raises(error):
            asyncio.run(push_image(images, IMAGE.id, wish._replace(target=wish.target.replace("HOST", taking.host))))
        with pytest.raises(NotFound):
            asyncio.run(push_image(images, "none", PushWish(f"{taking.host}/a:b")))
        assert images.progress.running() == []
    assert taking.requests == []


def test_an_artifact_is_pushed_as_it_came(tmp_path: Path, taking: UploadRegistry) -> None:
    content = b"model"
    layer = {"mediaType": "text/plain", "digest": made.digest_of(content), "size": len(content)}
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": made.digest_of(b"{}"), "size": 2}
    raw = json.dumps(
        {
            **{"schemaVersion": 2, "mediaType": made.OCI_MANIFEST, "artifactType": "x/y"},
            **{"config": empty, "layers": [layer, layer]},
        }
    ).encode()
    digest = Digest.of(raw)
    with image_store(tmp_path) as images:
        images.registry.use(Hosts([Rule(prefix=taking.host, location=taking.host, insecure=True)]))
        images.hosts = images.registry.hosts
        manifest = decode_manifest(raw, artifacts=True)
        assert isinstance(manifest, Manifest)
        names = [blob.name for blob in plan_blobs(manifest)]
        images.rows.add_layer(LayerRow(names[0], made.digest_of(content), 5, 2))
        images.rows.add(
            Image(
                id=ImageId(digest.hex),
                manifest_digest=str(digest),
                manifest=raw,
                config=b"{}",
                layers=tuple(names),
                size_bytes=0,
                pulled_ns=1,
            )
        )

        async def main() -> Pushed:
            await images.layers.open()
            path = blob_path(images, Digest.of(content))
            path.parent.mkdir()
            path.write_bytes(content)
            try:
                return await push_image(images, digest.hex, PushWish(f"{taking.host}/team/model:v1"))
            finally:
                await images.registry.close()

        pushed = asyncio.run(main())
    assert pushed.digest == digest
    assert taking.manifests == {"team/model v1": raw}
    assert set(taking.blobs.values()) == {content, b"{}"}


def test_who_leaves_while_a_file_is_begun_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with image_store(tmp_path) as images:

        async def main() -> list[str]:
            image = keep(images, IMAGE, "example.com/base/image")
            sharing = push_module._Push(images, image, PushWish(""), "oci", NOT_NEEDED, NOT_NEEDED)
            before = leaks.descriptors()
            packed = push_module._push_packed(sharing, image.layers[0], LayerProgress("", 0))
            await cancelled_within(monkeypatch, push_module, "anonymous", packed)
            return leaks.new_descriptors(before)

        assert asyncio.run(main()) == []
