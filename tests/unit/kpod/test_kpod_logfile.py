import asyncio
import io
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kpod_fake import log_line

from criollo.aio.together import together
from criollo.errors import CriolloError, NotFound
from criollo.kpod.logfile import Output, entries, tail_start
from criollo.wire.crilog import LogEntry


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

    async def run(self) -> None:
        async for entry in entries(self._path, ended=self._ended, **self._options):
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
        before = set(os.listdir("/proc/self/fd"))
        follower = Follower(path)
        follower.over = True
        await follower.run()
        assert set(os.listdir("/proc/self/fd")) == before

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

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(CriolloError, match="no regular file"):
        asyncio.run(main())
    assert set(os.listdir("/proc/self/fd")) == before
