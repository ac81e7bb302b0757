"""Layouts and dirs that are read: by name, to their limits, never anything else than the digest says."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.images import Image, file, make_image, write_oci_layout

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Invalid, NotFound
from criollo.images.copy import CopySource
from criollo.images.copysources import LayoutSource, opened_dir, opened_layout
from criollo.images.progress import LayerProgress
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def content_of(source: CopySource, blob: Descriptor) -> bytes:
    fd = os.memfd_create("blob")
    try:
        asyncio.run(source.pour(blob, fd, LayerProgress("", 0)))
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def described(content: bytes, size: int | None = None) -> Descriptor:
    return Descriptor(media_type="x", digest=Digest.of(content), size=len(content) if size is None else size)


def test_an_image_of_a_layout_is_found_by_its_name_or_alone(tmp_path: Path) -> None:
    one, two = make_image([[file("a")]]), make_image([[file("b")]])
    several = write_oci_layout(tmp_path / "several", {"v1": one, "v2": two})
    with opened_layout(several, "v2") as source:
        assert asyncio.run(source.document(None)).raw == two.manifest
    with pytest.raises(Invalid, match="v1, v2"), opened_layout(several, ""):
        pass
    with pytest.raises(NotFound, match="v3"), opened_layout(several, "v3"):
        pass
    with opened_layout(write_oci_layout(tmp_path / "one", {"v1": one, "v2": one}), "") as source:
        assert asyncio.run(source.document(None)).raw == one.manifest


def test_blobs_are_what_digest_and_size_say(tmp_path: Path) -> None:
    image = make_image([[file("a")]])
    layout = write_oci_layout(tmp_path / "layout", {"v1": image})
    content = image.blobs[f"sha256:{image.id}"]
    path = layout / "blobs/sha256" / image.id
    with opened_layout(layout, "v1") as source:
        assert content_of(source, described(content)) == content
        for size in (0, len(content) - 1, len(content) + 1):
            with pytest.raises(Damaged, match="digest and size"):
                content_of(source, described(content, size))
        path.write_bytes(b"x" + content[1:])
        with pytest.raises(Damaged):
            content_of(source, described(content))
        path.unlink()
        path.symlink_to("/etc/hostname")
        with pytest.raises(NotFound):
            content_of(source, described(content))
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(Invalid, match="regular file"):
            content_of(source, described(content))


def test_documents_are_checked(tmp_path: Path) -> None:
    image = make_image([[file("a")]])
    layout = write_oci_layout(tmp_path / "layout", {"v1": image})
    (layout / "blobs/sha256" / image.digest[7:]).write_bytes(b"{}")
    with opened_layout(layout, "v1") as source, pytest.raises(Damaged):
        asyncio.run(source.document(None))


def put_dir(path: Path, image: Image) -> Path:
    path.mkdir()
    (path / "manifest.json").write_bytes(image.manifest)
    return path


def test_a_dir_has_its_documents_by_digest_and_their_signatures(tmp_path: Path) -> None:
    image, other = make_image([[file("a")]]), make_image([[file("b")]])
    path = put_dir(tmp_path / "dir", image)
    (path / f"{other.digest[7:]}.manifest.json").write_bytes(other.manifest)
    (path / "signature-1").write_bytes(b"one")
    (path / f"{other.digest[7:]}.signature-1").write_bytes(b"two")
    with opened_dir(path) as source:
        top, listed = (asyncio.run(source.document(digest)) for digest in (None, Digest(other.digest)))
        assert (top.raw, listed.raw) == (image.manifest, other.manifest)
        assert asyncio.run(source.document(Digest(image.digest))).raw == image.manifest
        assert [tuple(asyncio.run(source.signatures(each, carried=True))) for each in (top, listed)] == [(b"one",), (b"two",)]
        with pytest.raises(Damaged, match="missing"):
            asyncio.run(source.document(Digest("sha256:" + "0" * 64)))
    (path / "version").write_text("Directory Transport Version: 2.0\n")
    with pytest.raises(Invalid, match="version"), opened_dir(path):
        pass


@pytest.mark.parametrize("content", [None, "[]", json.dumps({"schemaVersion": 2}), "x"])
def test_what_is_neither_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(CriolloError), opened_layout(tmp_path, ""):
        pass
    with pytest.raises(CriolloError), opened_dir(tmp_path):
        pass
    with pytest.raises(CriolloError), opened_layout(tmp_path / "not there", ""):
        pass


def test_a_layout_has_no_signatures(tmp_path: Path) -> None:
    with opened_layout(write_oci_layout(tmp_path / "l", {"v1": make_image([[file("a")]])}), "") as source:
        assert isinstance(source, LayoutSource)
        assert asyncio.run(source.signatures(asyncio.run(source.document(None)), carried=True)) == ()
