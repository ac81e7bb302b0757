"""Archives of layouts: what is written is a tar that others read; of what comes only a layout's files are taken."""

import asyncio
import contextlib
import gzip
import io
import os
import tarfile  # noqa: TID251 - a second reader and a hostile writer
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import file, make_image, make_index, write_oci_archive

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Exhausted, Invalid
from criollo.images import copyarchive
from criollo.images.copy import CopyWish, copy_image
from criollo.images.copyarchive import opened_archive_target, unpack, unpacked
from criollo.images.copysources import opened_layout
from criollo.images.progress import Progress

IMAGE = make_image([[file("a", "x" * 3000)]])
INDEX = make_index([IMAGE, make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})])


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def again(source: Path, target: Path, name: str = "") -> str:
    async def body() -> str:
        async with unpacked(source, target.parent) as layout, opened_archive_target(target, name) as written:
            with opened_layout(layout, "") as found:
                return str((await copy_image(found, written, CopyWish(every=True), Progress("t"))).digest)

    return asyncio.run(body())


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}  # type: ignore[union-attr]


@pytest.mark.parametrize("nameless", [True, False])
def test_an_archive_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool) -> None:
    if not nameless:
        monkeypatch.setattr(copyarchive, "open_nameless", lambda *arguments: None)
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


def test_only_files_of_a_layout_are_taken(tmp_path: Path) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, kind, link in (
            ("../out", tarfile.REGTYPE, ""),
            ("/etc/passwd", tarfile.REGTYPE, ""),
            ("blobs/sha256/../../../x", tarfile.REGTYPE, ""),
            ("blobs/sha256/" + "A" * 64, tarfile.REGTYPE, ""),
            ("blobs/sha256/" + "a" * 64, tarfile.SYMTYPE, "/etc/passwd"),
            ("index.json", tarfile.LNKTYPE, "/etc/passwd"),
            ("blobs", tarfile.SYMTYPE, "/"),
            ("oci-layout", tarfile.FIFOTYPE, ""),
            ("./blobs/sha256/" + "b" * 64, tarfile.REGTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"data"))
    (tmp_path / "a.tar").write_bytes(written.getvalue())
    (tmp_path / "in").mkdir()
    with open(tmp_path / "a.tar", "rb") as source:
        unpack(source.fileno(), tmp_path / "in")
    assert [path.relative_to(tmp_path / "in") for path in (tmp_path / "in").rglob("*") if path.is_file()] == [
        Path("blobs/sha256") / ("b" * 64)
    ]
    with pytest.raises(Invalid, match=r"index\.json"):
        again(tmp_path / "a.tar", tmp_path / "b.tar")


def test_bombs_end_at_the_limit(tmp_path: Path) -> None:
    path = write_oci_archive(tmp_path / "a.tar", {"v1": make_image([[file("a", bytes(1 << 20))]], compression="none")})
    path.write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "in").mkdir()
    with open(path, "rb") as source, pytest.raises(Exhausted, match="limit"):
        unpack(source.fileno(), tmp_path / "in", limit_bytes=100_000)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="a file"):
        again(tmp_path, tmp_path / "b.tar")
    with pytest.raises(CriolloError):
        again(tmp_path / "none", tmp_path / "b.tar")


@given(st.binary(max_size=2000))
def test_any_bytes_are_unpacked_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    place = tmp_path_factory.mktemp("any")
    (place / "in").mkdir()
    (place / "a").write_bytes(raw)
    with open(place / "a", "rb") as source, contextlib.suppress(CriolloError):
        unpack(source.fileno(), place / "in")
    assert sorted(os.listdir(place)) == ["a", "in"]
