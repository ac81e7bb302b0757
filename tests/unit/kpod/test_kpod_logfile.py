import asyncio
import contextlib
import gzip
import io
import itertools
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kpod_fake import log_line
from support import leaks
from support.waiting import run

from criollo.aio.together import together
from criollo.errors import CriolloError, NotFound
from criollo.kpod.logfile import Output, entries, tail_start
from criollo.wire.crilog import LogEntry, format_entry


async def collect(found: AsyncGenerator[LogEntry, None]) -> list[bytes]:
    return [entry.content async for entry in found]


def read(path: Path, tail: int | None = None) -> list[bytes]:
    return asyncio.run(collect(entries(path, tail=tail)))


class Follower:
    """Follows a log in a task of its own; `seen` grows."""

    def __init__(self, path: Path, **options: int) -> None:
        self.seen: list[bytes] = []
        self.over = False
        self._path, self._options = path, options

    def entries(self) -> AsyncGenerator[LogEntry, None]:
        return entries(self._path, ended=self._ended, **self._options)

    async def run(self) -> None:
        async for entry in self.entries():
            self.seen.append(entry.content)

    async def until(self, *expected: bytes) -> None:
        async with asyncio.timeout(60):
            while self.seen != list(expected):
                await asyncio.sleep(0.005)

    async def _ended(self) -> bool:
        return self.over


def test_a_whole_log_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(log_line("a") + log_line("b"))
    assert read(path) == [b"a", b"b"]


def test_tail_counts_lines_as_programs_write_them(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(log_line("a") + log_line("b1", tag="P") + log_line("b2") + log_line("c"))
    assert read(path, 0) == []
    assert read(path, 1) == [b"c"]
    assert read(path, 2) == [b"b1", b"b2", b"c"]
    assert read(path, 9) == [b"a", b"b1", b"b2", b"c"]


@given(st.lists(st.text(alphabet="xy", max_size=40_000), max_size=6), st.integers(0, 8))
def test_tail_begins_where_it_should(tmp_path_factory: pytest.TempPathFactory, texts: list[str], wanted: int) -> None:
    path = tmp_path_factory.mktemp("tail") / "0.log"
    path.write_bytes(b"".join(map(log_line, texts)))
    with open(path, "rb") as file:
        file.seek(tail_start(file.fileno(), wanted))
        assert file.read() == b"".join(map(log_line, texts[max(0, len(texts) - wanted) :]))


def test_what_is_written_later_comes_until_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        path.write_bytes(log_line("a"))
        follower = Follower(path)
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run())
            await follower.until(b"a")
            with open(path, "ab", buffering=0) as file:
                line = log_line("b")
                file.write(line[:10])
                file.write(line[10:] + log_line("c"))
                await follower.until(b"a", b"b", b"c")
                file.write(log_line("last words"))
                follower.over = True
        assert follower.seen[-1] == b"last words"

    asyncio.run(main())


def test_rotation_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        path.write_bytes(log_line("a"))
        follower = Follower(path)
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run())
            await follower.until(b"a")
            with open(path, "ab", buffering=0) as old:
                path.rename(tmp_path / "0.log.20261121")
                old.write(log_line("b"))
                await follower.until(b"a", b"b")
                old.write(log_line("c"))
                path.write_bytes(log_line("d"))
            await follower.until(b"a", b"b", b"c", b"d")
            follower.over = True

    asyncio.run(main())


_clock = itertools.count(1_800_000_000_000_000_000)


def later_line(text: str) -> bytes:
    """A line of the log, written after those that were made before."""
    return format_entry(LogEntry(next(_clock), "stdout", False, text.encode()))


def rotate(path: Path, stamp: str, *texts: str, packed: bool = False) -> Path:
    """A log that went by the name of `path` for a while, and does no more."""
    content = b"".join(map(later_line, texts))
    rotated = path.with_name(f"{path.name}.{stamp}{'.gz' if packed else ''}")
    rotated.write_bytes(gzip.compress(content) if packed else content)
    return rotated


def test_a_reader_who_took_his_time_gets_all_that_was_rotated_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        rotate(path, "20261122-100000", "of before")
        path.write_bytes(later_line("a") + later_line("b"))
        follower = Follower(path)
        async with contextlib.aclosing(follower.entries()) as found:
            assert (await anext(found)).content == b"a"
            path.unlink()  # as kubelets remove what is too old
            rotate(path, "20261122-100002", "c", "d" * 100_000, packed=True)
            rotate(path, "20261122-100003", "e", packed=True)
            rotate(path, "20261122-100004", "f")
            (tmp_path / "0.log.beside").write_bytes(later_line("another's"))
            path.write_bytes(later_line("g"))
            follower.over = True
            assert await collect(found) == [b"b", b"c", b"d" * 100_000, b"e", b"f", b"g"]

    before = leaks.descriptors()
    run(main())
    assert leaks.new_descriptors(before) == []


def followed_over_a_rotation(path: Path) -> AsyncGenerator[LogEntry, None]:
    """Follows a log that has `a` and is rotated, once that is read, when `b` was written; the new one has `c`."""
    path.write_bytes(later_line("a"))
    looks = itertools.count()

    async def ended() -> bool:
        if next(looks) == 1:
            with open(path, "ab") as old:
                path.rename(path.with_name(f"{path.name}.20261122-100000"))
                old.write(later_line("b"))
            path.write_bytes(later_line("c"))
        return False

    return entries(path, ended=ended)


def test_a_second_rotation_that_is_under_way_does_not_end_it(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        async with contextlib.aclosing(followed_over_a_rotation(path)) as found:
            assert [(await anext(found)).content for _ in range(2)] == [b"a", b"b"]
            path.rename(tmp_path / "0.log.20261122-100001")
            assert (await anext(found)).content == b"c"
            path.write_bytes(later_line("d"))
            assert (await anext(found)).content == b"d"

    run(main())


def test_a_log_that_has_no_successor_yet_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        async with contextlib.aclosing(followed_over_a_rotation(path)) as found:
            assert [(await anext(found)).content for _ in range(2)] == [b"a", b"b"]
            path.unlink()
            asyncio.get_running_loop().call_soon(path.write_bytes, later_line("d"))
            assert (await anext(found)).content == b"d"

    run(main())


def test_a_damaged_archive_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        path.write_bytes(later_line("a"))
        follower = Follower(path)
        async with contextlib.aclosing(follower.entries()) as found:
            assert (await anext(found)).content == b"a"
            path.unlink()
            archive = rotate(path, "1", "b", packed=True)
            archive.write_bytes(archive.read_bytes()[:-8])
            (tmp_path / "0.log.2.gz").write_bytes(b"\x1f\x8bnot really")
            path.write_bytes(later_line("c"))
            follower.over = True
            assert await collect(found) == [b"b", b"c"]

    run(main())


def test_a_truncated_log_is_read_anew(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        path.write_bytes(log_line("a long line"))
        follower = Follower(path)
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run())
            await follower.until(b"a long line")
            path.write_bytes(log_line("b"))
            await follower.until(b"a long line", b"b")
            follower.over = True

    asyncio.run(main())


def test_following_lets_go_of_its_descriptors(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        path.write_bytes(log_line("a"))
        before = leaks.descriptors()
        follower = Follower(path)
        follower.over = True
        await follower.run()
        assert leaks.new_descriptors(before) == []

    asyncio.run(main())


def test_a_log_that_is_gone_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="its file was removed"):
        read(tmp_path / "none.log")
    os.mkfifo(tmp_path / "fifo.log")
    with pytest.raises(CriolloError, match="no regular file"):
        read(tmp_path / "fifo.log")


def test_output_joins_pieces_on_their_own_stream() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    output = Output(out, err, timestamps=True)
    for stream, partial, content in (("stdout", True, b"a"), ("stderr", False, b"x"), ("stdout", False, b"b")):
        output.write(LogEntry(1, stream, partial, content))
    assert out.getvalue() == b"1970-01-01T00:00:00.000000001Z ab\n"
    assert err.getvalue() == b"1970-01-01T00:00:00.000000001Z x\n"


def test_a_log_that_becomes_something_else_is_told_as_such(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "0.log"
        path.write_bytes(log_line("a"))
        follower = Follower(path)

        async def replace() -> None:
            await follower.until(b"a")
            path.unlink()
            os.mkfifo(path)

        async with asyncio.timeout(60):
            await together([follower.run(), replace()])

    before = leaks.descriptors()
    with pytest.raises(CriolloError, match="no regular file"):
        asyncio.run(main())
    assert leaks.new_descriptors(before) == []
