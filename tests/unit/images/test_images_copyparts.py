"""Files that are poured: whole and right, or an error; small ones to their limits."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Invalid, NotFound
from criollo.images.copyparts import opened_directory, pour_part, read_document, read_part
from criollo.images.progress import LayerProgress
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor

CONTENT = os.urandom(600_000)
BLOB = Descriptor(media_type="x", digest=Digest.of(CONTENT), size=len(CONTENT))


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def poured(directory: Path, name: str, blob: Descriptor = BLOB) -> bytes:
    fd, bar = os.memfd_create("sink"), LayerProgress("", blob.size)
    try:
        with opened_directory(directory) as parts:
            asyncio.run(pour_part(parts, name, blob, fd, bar=bar))
        assert bar.done_bytes == blob.size
        return os.pread(fd, blob.size + 1, 0)
    finally:
        os.close(fd)


def test_a_file_arrives_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    assert poured(tmp_path, "a") == CONTENT


def test_what_is_not_what_was_asked_for_is_an_error(tmp_path: Path) -> None:
    for content in (CONTENT[:-1], CONTENT + b"x", b"", CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(Damaged, match="digest and size"):
            poured(tmp_path, "a")
    with pytest.raises(NotFound):
        poured(tmp_path, "b")
    os.mkfifo(tmp_path / "c")
    with pytest.raises(Invalid):
        poured(tmp_path, "c")


def test_a_reader_that_has_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    source, sink = os.pipe()
    os.close(source)
    try:
        with opened_directory(tmp_path) as parts, pytest.raises(CriolloError, match="write a blob"):
            asyncio.run(pour_part(parts, "a", BLOB, sink, bar=LayerProgress("", 0)))
    finally:
        os.close(sink)


def test_small_files_are_read_to_their_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with opened_directory(tmp_path) as parts:
        assert read_part(parts, "a", 3) == b"abc"
        assert read_part(parts, "none", 3) is None
        with pytest.raises(Invalid, match="at most 2"):
            read_part(parts, "a", 2)
        assert read_document(parts, "a", Digest.of(b"abc"), 3) == b"abc"
        for name, digest in (("a", Digest.of(b"x")), ("none", Digest.of(b"abc"))):
            with pytest.raises(Damaged):
                read_document(parts, name, digest, 3)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CriolloError, match="none"), opened_directory(tmp_path / "none"):
        pass
