"""Standard input as a file: whole while it is used, gone afterwards; what a killed kpod left goes, a living one's stays."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from criollo.aio import threads
from criollo.errors import HostFailed, NotFound
from criollo.kpod import spool
from criollo.kpod.spool import named, spooled

HOLDS = """
import asyncio, sys
from pathlib import Path
from criollo.kpod.spool import spooled

async def main():
    async with spooled(Path(sys.argv[1])) as path:
        print(path, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def content_of(directory: Path) -> bytes:
    async def main() -> bytes:
        async with spooled(directory) as path:
            return path.read_bytes()

    return asyncio.run(main())


def test_all_of_it_is_there_and_gone_afterwards(tmp_path: Path, feed: Callable[[bytes], None]) -> None:
    (tmp_path / "spool").mkdir()
    content = os.urandom(1_000_000)
    feed(content)
    assert content_of(tmp_path / "spool") == content
    assert os.listdir(tmp_path / "spool") == []


def test_a_file_that_is_not_there_or_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert named("there", "archive") == tmp_path / "there"
    for missing in ("none", "there/below"):
        with pytest.raises(NotFound, match=f"archive {missing} not found"):
            named(missing, "archive")
    with pytest.raises(HostFailed, match=r"cannot read xxx.*: File name too long"):
        named("x" * 300, "archive")


def test_a_terminal_is_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool.os, "isatty", lambda fd: True)
    with pytest.raises(click.UsageError, match="pipe an archive in"):
        content_of(tmp_path)


def test_what_a_killed_one_left_goes_and_what_a_living_one_has_stays(tmp_path: Path, feed: Callable[[bytes], None]) -> None:
    place = tmp_path / "spool"
    place.mkdir()
    argv = [sys.executable, "-c", HOLDS, str(place)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip()).parent
        feed(b"")
        content_of(place)
        assert list(place.iterdir()) == [held]
        process.kill()
        process.wait(60)
    content_of(place)
    assert list(place.iterdir()) == []
