"""Archives read in place: what Python's tarfile wrote is found where it is; what is hostile leads to nothing outside."""

import asyncio
import contextlib
import gzip
import io
import os
import tarfile  # noqa: TID251 - a second writer, and a hostile one
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import leaks
from support.waiting import cancelled_within

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Exhausted, Invalid, NotFound
from criollo.images import copytar
from criollo.images.copyparts import Parts, read_part
from criollo.images.copytar import opened_archive


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def write(path: Path, members: Sequence[tuple[str, bytes, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """Members are name, type, and content or link."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content.decode()
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path: Path, *names: str) -> list[bytes | None]:
    async def body() -> list[bytes | None]:
        async with opened_archive(path, path.parent) as parts:
            return [read_part(parts, name, 1 << 20) for name in names]

    return asyncio.run(body())


@given(
    contents=st.lists(st.sampled_from([0, 1, 511, 512, 513, 60_000, 65_024, 65_536, 66_000, 200_000]), max_size=6),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
    packed=st.booleans(),
)
def test_members_of_any_size_are_found(
    tmp_path_factory: pytest.TempPathFactory, contents: list[int], form: int, packed: bool
) -> None:
    place = tmp_path_factory.mktemp("tar")
    made = [(f"dir/{number}", tarfile.REGTYPE, os.urandom(size)) for number, size in enumerate(contents)]
    path = write(place / "a.tar", made, form)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    assert read(path, *(name for name, _, _ in made)) == [content for _, _, content in made]
    assert os.listdir(place) == ["a.tar"]


def test_links_lead_to_members_and_to_nothing_else(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        [
            ("one/layer.tar", tarfile.REGTYPE, b"one"),
            ("two/layer.tar", tarfile.SYMTYPE, b"../one/layer.tar"),
            ("three", tarfile.LNKTYPE, b"two/layer.tar"),
            ("out", tarfile.SYMTYPE, b"/etc/hostname"),
            ("above", tarfile.SYMTYPE, b"../../../../etc/hostname"),
            ("round", tarfile.SYMTYPE, b"round"),
            ("fifo", tarfile.FIFOTYPE, b""),
        ],
    )
    assert read(path, "two/layer.tar", "three", "./one/../one/layer.tar") == [b"one"] * 3
    assert read(path, "out", "above", "round", "fifo", "etc", "") == [None] * 6


def test_the_last_of_a_name_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("a", tarfile.REGTYPE, b"1"), ("./a", tarfile.REGTYPE, b"2")])
    assert read(path, "a") == [b"2"]
    path = write(tmp_path / "b.tar", [("a", tarfile.REGTYPE, b"1"), ("a", tarfile.SYMTYPE, b"b")])
    assert read(path, "a") == [None]


@pytest.mark.parametrize("cut", [100, 700, 100_000])
def test_an_archive_that_is_broken_off_is_damaged(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.tar", [("a", tarfile.REGTYPE, bytes(200_000))])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Damaged, match=r"cannot read .*: it is no image archive, or broken off"):
        read(path, "a")


def test_bombs_end_at_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tar", [("a" * 90, tarfile.REGTYPE, bytes(1 << 20))])
    monkeypatch.setattr(copytar, "_MAX_NAMES_BYTES", 80)
    with pytest.raises(Exhausted, match="names"):
        read(path, "a")
    path.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr(copytar, "_MAX_BYTES", 100_000)
    with pytest.raises(Exhausted, match="limit"):
        read(path, "a")
    assert os.listdir(tmp_path) == ["a.tar"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="a file"):
        read(tmp_path)
    with pytest.raises(CriolloError, match="none"):
        read(tmp_path / "none")


def test_a_member_is_not_there(tmp_path: Path) -> None:
    async def body(parts: Parts) -> None:
        with parts.opened("b"):
            pass

    async def main() -> None:
        async with opened_archive(write(tmp_path / "a.tar", [("a", tarfile.REGTYPE, b"")]), tmp_path) as parts:
            await body(parts)

    with pytest.raises(NotFound, match="b"):
        asyncio.run(main())


@given(st.binary(max_size=3000), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes, named: bool) -> None:
    place = tmp_path_factory.mktemp("any")
    (place / "a").write_bytes(raw[:257] + b"ustar" + raw[262:] if named else raw)
    with contextlib.suppress(CriolloError):
        read(place / "a", "index.json")
    assert os.listdir(place) == ["a"]


def test_who_leaves_while_a_scratch_file_is_begun_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(write(tmp_path / "a.tar", [("a", tarfile.REGTYPE, b"x")]).read_bytes()))

    async def look() -> None:
        async with opened_archive(tmp_path / "a.tar.gz", tmp_path):
            pass

    async def main() -> list[str]:
        before = leaks.descriptors()
        await cancelled_within(monkeypatch, copytar, "scratch_file", look())
        return leaks.new_descriptors(before)

    assert asyncio.run(main()) == []
