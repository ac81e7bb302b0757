"""The directory transport: what is there is read to its limits, what is not what it says is refused."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import Image, file, make_image, make_index

from criollo.errors import CriolloError, Damaged, Invalid, NotFound
from criollo.images import dirlayout
from criollo.linux import files
from criollo.oci.signature import MAX_SIGNATURES


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    fd = files.open_directory(tmp_path)
    yield fd
    os.close(fd)


def put(path: Path, image: Image, *, name: str = "manifest.json") -> None:
    (path / name).write_bytes(image.manifest)
    for digest, content in image.blobs.items():
        (path / digest.partition(":")[2]).write_bytes(content)


def read(directory: int, path: Path) -> dirlayout.Image:
    return dirlayout.read_dir(directory, (path / "manifest.json").read_bytes())


def test_an_image_with_its_signatures(opened: int, tmp_path: Path) -> None:
    image = make_image([[file("a")]])
    put(tmp_path, image)
    for number, blob in ((1, b"one"), (2, b"two"), (4, b"beyond a gap")):
        (tmp_path / f"signature-{number}").write_bytes(blob)
    found = read(opened, tmp_path)
    assert (found.raw, found.config, found.signatures) == (image.manifest, image.config, (b"one", b"two"))
    assert [str(digest) for digest in found.digests] == [image.digest]


def test_of_an_index_the_manifest_of_this_platform_with_its_own_signatures(opened: int, tmp_path: Path) -> None:
    image, other = make_image([[file("a")]]), make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})
    index = make_index([other, image])
    (tmp_path / "manifest.json").write_bytes(index.manifest)
    for each in (image, other):
        put(tmp_path, each, name=f"{each.digest.partition(':')[2]}.manifest.json")
    (tmp_path / "signature-1").write_bytes(b"of the index")
    (tmp_path / f"{image.digest.partition(':')[2]}.signature-1").write_bytes(b"ours")
    found = read(opened, tmp_path)
    assert (found.raw, found.signatures) == (image.manifest, (b"ours",))
    assert [str(digest) for digest in found.digests] == [index.digest, image.digest]


def test_what_is_missing_or_changed_is_damage(opened: int, tmp_path: Path) -> None:
    image = make_image([[file("a")]])
    put(tmp_path, image)
    config = tmp_path / image.id
    config.write_bytes(b"{}")
    with pytest.raises(Damaged, match="digest"):
        read(opened, tmp_path)
    config.unlink()
    with pytest.raises(Damaged, match="missing"):
        read(opened, tmp_path)


def test_another_platform_or_version_is_refused(opened: int, tmp_path: Path) -> None:
    other = make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})
    (tmp_path / "manifest.json").write_bytes(make_index([other]).manifest)
    with pytest.raises(NotFound):
        read(opened, tmp_path)
    (tmp_path / "version").write_text("Directory Transport Version: 2.0\n")
    with pytest.raises(Invalid, match="version"):
        read(opened, tmp_path)


def test_too_many_signatures_and_links_out_of_it(opened: int, tmp_path: Path) -> None:
    put(tmp_path, make_image([[file("a")]]))
    (tmp_path / "signature-1").symlink_to("/etc/hostname")
    assert read(opened, tmp_path).signatures == ()
    (tmp_path / "signature-1").unlink()
    for number in range(1, MAX_SIGNATURES + 2):
        (tmp_path / f"signature-{number}").write_bytes(b"x")
    with pytest.raises(Invalid, match="over 1000"):
        read(opened, tmp_path)


@given(
    st.one_of(
        st.binary(max_size=300), st.dictionaries(st.text(max_size=9), st.integers()).map(lambda x: json.dumps(x).encode())
    )
)
def test_any_bytes_are_an_image_or_refused(raw: bytes) -> None:
    fd = files.open_directory("/proc/self/fdinfo")
    try:
        with pytest.raises(CriolloError):
            dirlayout.read_dir(fd, raw)
    finally:
        os.close(fd)
    assert dirlayout.is_dir(raw) == raw.strip().startswith(b"{")
