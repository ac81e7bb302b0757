"""Docker's archives as ends of a copy: read by name or number, written so that others load them, whole or not at all."""

import asyncio
import gzip
import hashlib
import json
import os
import tarfile  # noqa: TID251 - a second reader
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import (
    Image,
    decompress,
    file,
    make_image,
    make_index,
    tar_of,
    write_docker_archive,
    write_oci_layout,
)

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Invalid, NotFound, Unsupported
from criollo.images.copy import Copied, CopyWish, copy_image
from criollo.images.copydocker import opened_docker_archive, opened_docker_target
from criollo.images.copysources import opened_layout
from criollo.images.copytargets import opened_layout_target
from criollo.images.progress import Progress
from criollo.oci.image_spec import DOCKER_FOREIGN_LAYER, Manifest, decode_manifest

ONE, TWO = make_image([[file("a", "x" * 3000)], [file("b")]]), make_image([[file("c")]], compression="zstd")
REF, OTHER = "docker.io/library/one:v1", "example.com/two:latest"


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def into_layout(archive: Path, name: str, layout: Path) -> Manifest:
    """What the archive's image is in a layout."""

    async def body() -> Copied:
        async with opened_docker_archive(archive, name, archive.parent) as found:
            with opened_layout_target(layout, "x") as written:
                return await copy_image(found, written, CopyWish(), Progress("t"))

    done = asyncio.run(body())
    manifest = decode_manifest((layout / "blobs/sha256" / done.digest.hex).read_bytes())
    assert isinstance(manifest, Manifest)
    return manifest


def into_archive(image: Any, archive: Path, *names: str, every: bool = False) -> None:
    async def body() -> None:
        with opened_layout(write_oci_layout(archive.with_suffix(".layout"), {"x": image}), "") as found:
            async with opened_docker_target(archive, names) as written:
                await copy_image(found, written, CopyWish(every=every), Progress("t"))

    asyncio.run(body())


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]


def rewrite(path: Path, **changed: Any) -> None:
    """Change the first image of manifest.json."""
    found = members(path)
    entries = json.loads(found["manifest.json"])
    entries[0].update(changed)
    found["manifest.json"] = json.dumps(entries).encode()
    path.write_bytes(tar_of(file(name, content) for name, content in found.items()))


@pytest.mark.parametrize(("name", "image"), [("one:v1", ONE), (REF, ONE), ("@0", ONE), ("@1", TWO), ("example.com/two", TWO)])
def test_an_image_is_found_by_its_name_or_number(tmp_path: Path, name: str, image: Image) -> None:
    archive = write_docker_archive(tmp_path / "a.tar", {REF: ONE, OTHER: TWO})
    manifest = into_layout(archive, name, tmp_path / "layout")
    assert manifest.config.digest == f"sha256:{image.id}"
    assert [layer.digest for layer in manifest.layers] == [layer.diff_id for layer in image.layers]
    assert {layer.media_type for layer in manifest.layers} == {"application/vnd.oci.image.layer.v1.tar"}
    kept = [(tmp_path / "layout/blobs/sha256" / layer.digest.hex).read_bytes() for layer in manifest.layers]
    assert kept == [decompress(layer) for layer in image.layers]


@pytest.mark.parametrize("name", ["none:v1", "@2", "@-1", "@x", "@99999999999"])
def test_what_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    archive = write_docker_archive(tmp_path / "a.tar", {REF: ONE, OTHER: TWO})
    with pytest.raises(NotFound):
        into_layout(archive, name, tmp_path / "layout")
    with pytest.raises(Invalid, match=r"one:v1.*two"):
        into_layout(archive, "", tmp_path / "layout")


def test_layers_that_are_compressed_stay_so(tmp_path: Path) -> None:
    archive = write_docker_archive(tmp_path / "a.tar", {REF: ONE})
    found = members(archive)
    packed = {name: gzip.compress(content) if name.endswith("layer.tar") else content for name, content in found.items()}
    archive.write_bytes(tar_of(file(name, content) for name, content in packed.items()))
    manifest = into_layout(archive, "", tmp_path / "layout")
    assert {layer.media_type for layer in manifest.layers} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    assert {layer.digest.hex for layer in manifest.layers} == {
        hashlib.sha256(content).hexdigest() for name, content in packed.items() if name.endswith("layer.tar")
    }
    xz = {name: b"\xfd7zXZ\0" if name.endswith("layer.tar") else content for name, content in found.items()}
    archive.write_bytes(tar_of(file(name, content) for name, content in xz.items()))
    with pytest.raises(Unsupported, match="xz"):
        into_layout(archive, "", tmp_path / "other")


def test_a_layer_that_is_a_link_is_followed(tmp_path: Path) -> None:
    image = make_image([[file("a")], [file("a")]])
    found = members(write_docker_archive(tmp_path / "a.tar", {REF: image}))
    entries = json.loads(found["manifest.json"])
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        link = tarfile.TarInfo("second/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{entries[0]['Layers'][0]}"
        archive.addfile(link)
    entries[0]["Layers"][1] = "second/layer.tar"
    found["manifest.json"] = json.dumps(entries).encode()
    head = (tmp_path / "b.tar").read_bytes()[:512]
    (tmp_path / "b.tar").write_bytes(head + tar_of(file(name, content) for name, content in found.items()))
    assert len(into_layout(tmp_path / "b.tar", "", tmp_path / "layout").layers) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"Config": "none.json"},
        {"Layers": []},
        {"Layers": ["none"] * 2},
        {"Layers": 1},
        {"Layers": ["x"] * 1001},
        {"Config": "/"},
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    archive = write_docker_archive(tmp_path / "a.tar", {REF: ONE})
    rewrite(archive, **changed)
    with pytest.raises((Invalid, NotFound)):
        into_layout(archive, "", tmp_path / "layout")
    assert not (tmp_path / "layout/index.json").exists()


def test_a_layer_that_is_not_what_the_config_says_gives_no_image(tmp_path: Path) -> None:
    archive = write_docker_archive(tmp_path / "a.tar", {REF: ONE})
    found = members(archive)
    layer = json.loads(found["manifest.json"])[0]["Layers"][0]
    found[layer] = found[layer][:-1] + b"x"
    archive.write_bytes(tar_of(file(name, content) for name, content in found.items()))
    with pytest.raises(Damaged):
        into_layout(archive, "", tmp_path / "layout")
    assert not (tmp_path / "layout/index.json").exists()


def test_an_oci_archive_is_none_of_docker(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([file("index.json", b"{}")]))
    with pytest.raises(Invalid, match="oci-archive:"):
        into_layout(tmp_path / "a.tar", "", tmp_path / "layout")


@pytest.mark.parametrize("image", [ONE, TWO, make_image([[file("a")], [file("a")]])])
def test_what_is_written_is_what_docker_writes(tmp_path: Path, image: Image) -> None:
    into_archive(image, tmp_path / "a.tar", "one:v1", "example.com/more")
    found = members(tmp_path / "a.tar")
    [entry] = json.loads(found["manifest.json"])
    assert entry["RepoTags"] == [REF, "example.com/more:latest"]
    assert found[entry["Config"]] == image.config
    assert [found[layer] for layer in entry["Layers"]] == [decompress(layer) for layer in image.layers]
    assert len(found) == 2 + len(set(entry["Layers"]))
    again = into_layout(tmp_path / "a.tar", "example.com/more", tmp_path / "layout")
    assert again.config.digest == f"sha256:{image.id}"


def test_a_name_may_be_missing_and_a_digest_is_none(tmp_path: Path) -> None:
    into_archive(ONE, tmp_path / "a.tar")
    assert json.loads(members(tmp_path / "a.tar")["manifest.json"])[0]["RepoTags"] == []
    with pytest.raises(Invalid, match="tag"):
        into_archive(ONE, tmp_path / "b.tar", f"one@{ONE.digest}")
    with pytest.raises(Invalid, match="nothing is yet"):
        into_archive(ONE, tmp_path / "a.tar")


def test_an_index_is_refused_and_its_image_is_not(tmp_path: Path) -> None:
    index = make_index([ONE, make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})])
    with pytest.raises(Invalid, match="--platform"):
        into_archive(index, tmp_path / "a.tar", every=True)
    assert not (tmp_path / "a.tar").exists()
    into_archive(index, tmp_path / "a.tar")
    assert members(tmp_path / "a.tar")[f"{ONE.id}.json"] == ONE.config


@pytest.mark.parametrize("is_there", [True, False])
def test_a_foreign_layer_is_written_as_any_other_or_there_is_no_archive(tmp_path: Path, is_there: bool) -> None:
    manifest = json.loads(ONE.manifest)
    manifest["layers"][0]["mediaType"] = f"{DOCKER_FOREIGN_LAYER}.gzip"
    foreign = replace(ONE, manifest=json.dumps(manifest).encode())
    layout = write_oci_layout(tmp_path / "layout", {"x": foreign})
    if not is_there:
        (layout / "blobs/sha256" / ONE.layers[0].digest[7:]).unlink()

    async def body() -> None:
        with opened_layout(layout, "") as found:
            async with opened_docker_target(tmp_path / "a.tar", ()) as written:
                await copy_image(found, written, CopyWish(), Progress("t"))

    if is_there:
        asyncio.run(body())
        found = members(tmp_path / "a.tar")
        [entry] = json.loads(found["manifest.json"])
        assert [found[layer] for layer in entry["Layers"]] == [decompress(layer) for layer in ONE.layers]
        return
    with pytest.raises(NotFound, match="must have all layers"):
        asyncio.run(body())
    assert os.listdir(tmp_path) == ["layout"]


@pytest.mark.parametrize("fault", ["diff id", "stream", "digest"])
def test_a_layer_that_is_wrong_leaves_no_archive(tmp_path: Path, fault: str) -> None:
    image = ONE
    if fault == "diff id":
        other = make_image([[file("z")], [file("b")]])
        manifest = json.loads(image.manifest)
        manifest["layers"] = json.loads(other.manifest)["layers"]
        image = replace(image, manifest=json.dumps(manifest).encode(), layers=other.layers)
    elif fault == "stream":
        junk = b"\x1f\x8b\x08 no gzip at all"
        manifest = json.loads(image.manifest)
        digest = hashlib.sha256(junk).hexdigest()
        manifest["layers"][0] |= {"digest": f"sha256:{digest}", "size": len(junk)}
        layers = (replace(image.layers[0], blob=junk), *image.layers[1:])
        image = replace(image, manifest=json.dumps(manifest).encode(), layers=layers)
    layout = write_oci_layout(tmp_path / "a.layout", {"x": image})
    if fault == "digest":
        path = layout / "blobs/sha256" / json.loads(image.manifest)["layers"][0]["digest"][7:]
        path.write_bytes(b"x" + path.read_bytes()[1:])

    async def body() -> None:
        with opened_layout(layout, "") as found:
            async with opened_docker_target(tmp_path / "a.tar", ()) as written:
                await copy_image(found, written, CopyWish(), Progress("t"))

    with pytest.raises(Damaged, match={"stream": "gzip", "digest": "digest and size"}.get(fault, "config says")):
        asyncio.run(body())
    assert os.listdir(tmp_path) == ["a.layout"]


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
    | st.lists(st.fixed_dictionaries({"Config": st.text(max_size=9), "Layers": st.lists(st.text(max_size=9), max_size=3)}))
)
def test_any_list_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, entries: Any) -> None:
    place = tmp_path_factory.mktemp("any")
    (place / "a").write_bytes(tar_of([file("manifest.json", json.dumps(entries).encode())]))
    with pytest.raises(CriolloError):
        into_layout(place / "a", "", place / "layout")
