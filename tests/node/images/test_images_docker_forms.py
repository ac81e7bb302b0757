"""What `docker save` writes, in the forms that it has had: loaded, and copied, with all names and each layer's files."""

import asyncio
import hashlib
import io
import json
import tarfile  # noqa: TID251 - another writer than ours
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.image_store import image_store
from support.images import Image, decompress, file, make_image, make_index

from criollo.images.context import Images
from criollo.images.copy import CopyWish, copy_image
from criollo.images.copydocker import opened_docker_archive
from criollo.images.copytargets import opened_layout_target
from criollo.images.load import load_images
from criollo.images.progress import Progress
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

SAME = [file("same", "s")]
IMAGE = make_image([[file("a", "x" * 3000)], SAME, [file("b")], SAME])  # a layer twice, as builders do with empty ones
OTHER = make_image([[file("c", "z")]], docker=True)
FOREIGN = make_image([[file("arm")]], platform={"os": "linux", "architecture": "riscv64"})
NAMES = ("example.com/one:v1", "example.com/one:v2")
LINK = b"->"  # what stands before the target of a link


def written(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
            elif content.startswith(LINK):
                entry.type, entry.linkname = tarfile.SYMTYPE, content.removeprefix(LINK).decode()
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def repositories(**tops: str) -> bytes:
    return json.dumps(
        {"example.com/one": {"v1": tops["one"], "v2": tops["one"]}, "example.com/two": {"v1": tops["two"]}}
    ).encode()


def old_form(path: Path) -> Path:
    """Docker before 25: a directory per layer with its place in the image, a layer that was there as a link."""
    members: dict[str, bytes] = {}
    first: dict[str, str] = {}
    entries = []
    for image, names in ((IMAGE, NAMES), (OTHER, ("example.com/two:v1",))):
        places = []
        for number, layer in enumerate(image.layers):
            place = hashlib.sha256(f"{image.id}{number}".encode()).hexdigest()
            members |= {f"{place}/": b"", f"{place}/VERSION": b"1.0", f"{place}/json": b'{"id":"%s"}' % place.encode()}
            seen = first.setdefault(layer.diff_id, place)
            members[f"{place}/layer.tar"] = decompress(layer) if seen == place else LINK + f"../{seen}/layer.tar".encode()
            places.append(f"{place}/layer.tar")
        members[f"{image.id}.json"] = image.config
        entries.append({"Config": f"{image.id}.json", "RepoTags": list(names), "Layers": places})
    tops = [entry["Layers"][-1].partition("/")[0] for entry in entries]
    members["manifest.json"] = json.dumps(entries).encode()
    members["repositories"] = repositories(one=tops[0], two=tops[1])
    return written(path, members)


def index_entry(content: bytes, media_type: str, name: str = "", **more: Any) -> dict[str, Any]:
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(content), **more, **({"annotations": names} if name else {})}


def blob_path(content: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"


def new_form(path: Path) -> Path:
    """Docker from 25 on: an OCI layout of plain layers, with the old list beside it."""
    members = {"blobs/": b"", "blobs/sha256/": b""}
    entries, listed = [], []
    for image, names in ((IMAGE, NAMES), (OTHER, ("example.com/two:v1",))):
        plain = make_image([decompress(layer) for layer in image.layers], compression="none")
        manifest = json.loads(plain.manifest)
        manifest["config"] = {**manifest["config"], "digest": f"sha256:{image.id}", "size": len(image.config)}
        raw = json.dumps(manifest).encode()
        for content in (image.config, raw, *(layer.blob for layer in plain.layers)):
            members[blob_path(content)] = content
        members[blob_path(b"legacy" + raw)] = b"legacy" + raw  # of each layer's place, as in the old form
        listed += [index_entry(raw, plain.media_type, name) for name in names]
        layers = [blob_path(layer.blob) for layer in plain.layers]
        sources = {layer.digest: layer.descriptor() for layer in plain.layers}
        entry = {"Config": blob_path(image.config), "RepoTags": list(names), "Layers": layers, "LayerSources": sources}
        entries.append(entry)
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed}
    members["index.json"] = json.dumps(index).encode()
    members["manifest.json"] = json.dumps(entries).encode()
    members["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    members["repositories"] = repositories(one="1" * 64, two="2" * 64)
    return written(path, members)


def containerd_form(path: Path) -> Path:
    """Docker with containerd's store: compressed layers as they were pulled, an index, and of that only this platform."""
    index = make_index([IMAGE, FOREIGN], attestation=True)
    members = {"blobs/": b"", "blobs/sha256/": b""}
    for content in (index.manifest, *(part for image in (IMAGE, OTHER) for part in (image.manifest, *image.blobs.values()))):
        members[blob_path(content)] = content
    listed = [index_entry(index.manifest, index.media_type, name) for name in NAMES]
    listed.append(index_entry(OTHER.manifest, OTHER.media_type, "example.com/two:v1"))
    entries = [
        {
            "Config": blob_path(image.config),
            "RepoTags": list(names),
            "Layers": [blob_path(layer.blob) for layer in image.layers],
        }
        for image, names in ((IMAGE, NAMES), (OTHER, ("example.com/two:v1",)))
    ]
    document = {"schemaVersion": 2, "mediaType": index.media_type, "manifests": listed}
    members["index.json"] = json.dumps(document).encode()
    members["manifest.json"] = json.dumps(entries).encode()
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return written(path, members)


FORMS = [old_form, new_form, containerd_form]
Form = Callable[[Path], Path]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_loaded_with_all_names(tmp_path: Path, form: Form) -> None:
    root = tmp_path / "root"
    root.mkdir()
    archive = form(tmp_path / "saved.tar")

    async def body(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            loaded = await load_images(images, archive)
        assert [(each.image.id, each.names) for each in loaded] == [(IMAGE.id, NAMES), (OTHER.id, ("example.com/two:v1",))]
        assert [each.image.config for each in loaded] == [IMAGE.config, OTHER.config]
        files = [[path.name for path in images.layers.path(layer).iterdir()] for layer in loaded[0].image.layers]
        assert files == [["a"], ["same"], ["b"], ["same"]]

    with image_store(root, workers=Workers()) as images:
        asyncio.run(body(images))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "image"), [("example.com/one:v2", IMAGE), ("example.com/two:v1", OTHER), ("@1", OTHER)])
def test_every_form_is_copied_by_name_and_number(tmp_path: Path, form: Form, name: str, image: Image) -> None:
    archive = form(tmp_path / "saved.tar")

    async def body() -> bytes:
        async with opened_docker_archive(archive, name, tmp_path) as found:
            with opened_layout_target(tmp_path / "layout", "x") as target:
                done = await copy_image(found, target, CopyWish(), Progress("t"))
        return (tmp_path / "layout/blobs/sha256" / done.digest.hex).read_bytes()

    with image_store(tmp_path):  # ends the threads
        manifest = decode_manifest(asyncio.run(body()))
    assert isinstance(manifest, Manifest)
    assert manifest.config.digest.hex == image.id
    assert len(manifest.layers) == len(image.layers)
