"""workers.seal_check with real workers: whatever the unpacker accepts, a check right after it finds whole."""

import asyncio
import io
import os
import shutil
import tarfile  # noqa: TID251  # archives for tests
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.tars import END, entry, header, padded, pax

from criollo.errors import CriolloError
from criollo.workers.messages import Verified, VerifyJob
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

NAMES = [
    b"a",
    b"b",
    b"d",
    b"d/a",
    b"d/b",
    b"d/e/a",
    b"l",
    b"l/a",
    b"l/e/b",
    b"./d/../a",
    b"/b",
    b"d/.wh.a",
    b".wh.d",
    b"d/.wh..wh..opq",
]
TARGETS = [b"d", b"a", b"/d", b"d/e", b"../d", b"nowhere"]


async def unpack_and_check(place: Path, archive: bytes) -> Verified:
    async with Workers() as workers:
        return await check_by(workers, place, archive)


async def check_by(workers: Workers, place: Path, archive: bytes) -> Verified:
    top, seal = place / "layer", place / "seal"
    top.mkdir()
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    seal_fd = os.open(seal, os.O_RDWR | os.O_CREAT)
    try:
        async with workers.unpack(directory, "none", seal_fd=seal_fd) as job:
            await asyncio.get_running_loop().run_in_executor(None, _write, job.pipe_fd, archive)
            unpacked = await job.result()
        return await workers.verify(directory, seal_fd, VerifyJob(diff_id=unpacked.diff_id))
    finally:
        os.close(directory)
        os.close(seal_fd)


def _write(fd: int, content: bytes) -> None:
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        pass


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Entries that meet each other: names through links, the same name again, whiteouts, marks, hard links."""
    parts = []
    for _ in range(draw(st.integers(1, 14))):
        name, kind = draw(st.sampled_from(NAMES)), draw(st.sampled_from([b"0", b"0", b"5", b"5", b"2", b"1", b"6", b"3"]))
        if b".wh." in name:
            kind = b"0"
        mode = b"%07o\0" % draw(st.sampled_from([0o644, 0o755, 0o4755, 0o2755, 0o1777, 0]))
        owner = b"%07o\0" % draw(st.sampled_from([0, 7]))
        link = draw(st.sampled_from(TARGETS if kind == b"2" else NAMES[:9])) if kind in (b"1", b"2") else b""
        content = draw(st.sampled_from([b"", b"x", b"y" * 513, bytes(2000)])) if kind == b"0" and b".wh." not in name else b""
        parts.append(entry(name, kind, content, mode=mode, uid=owner, gid=owner, link=link, minor=b"0000003\0"))
    return b"".join(parts) + END


def test_what_was_unpacked_is_whole(tmp_path: Path) -> None:
    workers, runner = Workers(), asyncio.Runner()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(archive=archives())
    def holds(archive: bytes) -> None:
        place = tmp_path / uuid.uuid4().hex
        place.mkdir()
        try:
            damage = runner.run(check_by(workers, place, archive)).damage
        except CriolloError as error:  # an archive that is refused
            damage = (str(error),) if "seal" in str(error) else ()
        finally:
            shutil.rmtree(place)
        assert damage == (), [(line[:20].rstrip(bytes(1)), line[156:157]) for line in blocks(archive)]

    with runner:
        try:
            holds()
        finally:
            runner.run(workers.close())


def blocks(archive: bytes) -> list[bytes]:
    found = [archive[at : at + 512] for at in range(0, len(archive), 512)]
    return [block for block in found if block[257:262] == b"ustar"]


def test_a_large_file_in_pieces_is_proven(tmp_path: Path) -> None:
    archive = entry(b"before", content=b"x") + entry(b"big", content=os.urandom(5 << 20)) + entry(b"after", content=b"y") + END
    found = asyncio.run(unpack_and_check(tmp_path, archive))
    assert (found.damage, found.proven) == ((), True)


def test_headers_that_end_where_the_stream_is_cut_are_proven(tmp_path: Path) -> None:
    before = entry(b"before", content=os.urandom(65536 - 2 * 512))
    whole = before + b"".join(entry(b"file-%d" % number, content=os.urandom(65536 - 512)) for number in range(20)) + END
    found = asyncio.run(unpack_and_check(tmp_path, whole))
    assert (found.damage, found.proven) == ((), True)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_attributes_are_proven(tmp_path: Path, form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        member = tarfile.TarInfo("/".join(["long-name" * 10] * 10))
        member.size, member.mtime = 3, 1_700_000_000
        archive.addfile(member, io.BytesIO(b"abc"))
    found = asyncio.run(unpack_and_check(tmp_path, out.getvalue() + os.urandom(2000)))
    assert (found.damage, found.proven) == ((), True)


def test_a_sparse_file_is_proven(tmp_path: Path) -> None:
    sparse = pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"s"),
        (b"GNU.sparse.realsize", b"1000000"),
    )
    content = padded(b"2\n0\n512\n900000\n700\n") + b"a" * 512 + b"b" * 700
    archive = sparse + header(b"GNUSparseFile.0/s", size=b"%011o\0" % len(content)) + padded(content) + END
    found = asyncio.run(unpack_and_check(tmp_path, archive))
    assert (found.damage, found.proven) == ((), True)
    assert found.size_bytes == 1212


def test_content_of_an_entry_that_was_replaced_cannot_be_proven_and_is_no_damage(tmp_path: Path) -> None:
    found = asyncio.run(unpack_and_check(tmp_path, entry(b"a", content=b"old") + entry(b"a", content=b"new") + END))
    assert (found.damage, found.proven) == ((), False)
