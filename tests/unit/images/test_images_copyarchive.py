"""Archives of layouts: what is written is a tar that others read, whole or not at all."""

import asyncio
import gzip
import json
import os
import tarfile  # noqa: TID251 - a second reader
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.images import file, make_image, make_index, tar_of, write_oci_archive

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Invalid
from criollo.images import workplace
from criollo.images.copy import CopyWish, copy_image
from criollo.images.copyarchive import opened_archive_target
from criollo.images.copysources import opened_oci_archive
from criollo.images.progress import Progress
from criollo.oci.image_spec import DOCKER_FOREIGN_LAYER

IMAGE = make_image([[file("a", "x" * 3000)]])
INDEX = make_index([IMAGE, make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})])


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def again(source: Path, target: Path, name: str = "") -> str:
    async def body() -> str:
        async with opened_oci_archive(source, "", target.parent) as found, opened_archive_target(target, name) as written:
            return str((await copy_image(found, written, CopyWish(every=True), Progress("t"))).digest)

    return asyncio.run(body())


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}  # type: ignore[union-attr]


@pytest.mark.parametrize("nameless", [True, False])
def test_an_archive_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool) -> None:
    if not nameless:
        monkeypatch.setattr(workplace, "open_nameless", lambda *arguments: None)
    theirs = write_oci_archive(tmp_path / "theirs.tar", {"v1": INDEX})
    assert again(theirs, tmp_path / "ours.tar", "v2") == INDEX.digest
    assert again(tmp_path / "ours.tar", tmp_path / "more.tar", "v2") == INDEX.digest
    ours, original = members(tmp_path / "ours.tar"), members(theirs)
    assert b'"v2"' in ours.pop("index.json")
    assert ours == {name: content for name, content in original.items() if name != "index.json"}
    assert sorted(os.listdir(tmp_path)) == ["more.tar", "ours.tar", "theirs.tar"]
    theirs.with_suffix(".gz").write_bytes(gzip.compress(theirs.read_bytes()))
    assert again(theirs.with_suffix(".gz"), tmp_path / "third.tar") == INDEX.digest


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    layout = make_image([[file("a")]])
    path = write_oci_archive(tmp_path / "a.tar", {"v1": layout})
    whole = path.read_bytes()
    path.write_bytes(
        whole.replace(layout.blobs[f"sha256:{layout.id}"], b"{" + b" " * (len(layout.blobs[f"sha256:{layout.id}"]) - 1))
    )
    with pytest.raises(Damaged):
        again(path, tmp_path / "b.tar")
    path.write_bytes(whole[:700])
    with pytest.raises(CriolloError):
        again(path, tmp_path / "b.tar")
    assert os.listdir(tmp_path) == ["a.tar"]
    path.write_bytes(whole)
    with pytest.raises(Invalid, match="nothing is yet"):
        again(path, path)


def test_a_foreign_layer_that_is_missing_leaves_no_hole(tmp_path: Path) -> None:
    image = make_image([[file("a")], [file("b")]])
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["mediaType"] = f"{DOCKER_FOREIGN_LAYER}.gzip"
    missing = manifest["layers"][0]["digest"]
    foreign = replace(image, manifest=json.dumps(manifest).encode())
    there = members(write_oci_archive(tmp_path / "a.tar", {"v1": foreign}))
    del there[f"blobs/sha256/{missing[7:]}"]
    (tmp_path / "a.tar").write_bytes(tar_of(file(name, content) for name, content in there.items()))
    assert again(tmp_path / "a.tar", tmp_path / "b.tar") == foreign.digest
    ours = members(tmp_path / "b.tar")
    assert {name for name in ours if name.startswith("blobs/")} == {
        f"blobs/sha256/{digest[7:]}" for digest in (*image.blobs, foreign.digest) if digest != missing
    }


def test_what_has_no_index_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("manifest.json"))
    with pytest.raises(Invalid, match=r"index\.json.*docker-archive:"):
        again(tmp_path / "a.tar", tmp_path / "b.tar")
    assert os.listdir(tmp_path) == ["a.tar"]
