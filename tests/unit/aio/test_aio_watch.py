"""aio.watch: directories watched, bursts debounced."""

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support import leaks

from criollo.aio import watch
from criollo.aio.watch import Remembered, changes

LIMIT_S = 60


def watched(directories: list[Path], change: Callable[[], None], *, quiet_s: float = 0.05) -> None:
    """Start to watch, change something, and return when that is told."""

    async def work() -> None:
        async with asyncio.timeout(LIMIT_S), aclosing(changes(directories, quiet_s=quiet_s)) as rounds:
            await anext(rounds)
            change()
            await anext(rounds)

    asyncio.run(work())


def quiet_after(directories: list[Path], change: Callable[[], None]) -> Coroutine[Any, Any, bool]:
    async def work() -> bool:
        async with aclosing(changes(directories, quiet_s=0.05)) as rounds:
            async with asyncio.timeout(LIMIT_S):
                await anext(rounds)
                change()
                await anext(rounds)
            try:
                async with asyncio.timeout(0.3):
                    await anext(rounds)
            except TimeoutError:
                return True
            return False

    return work()


def test_a_written_file_is_told(tmp_path: Path) -> None:
    watched([tmp_path], lambda: (tmp_path / "a").write_text("x") and None)


def test_a_removed_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    watched([tmp_path], (tmp_path / "a").unlink)


def test_a_file_renamed_over_another_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "new").touch()
    watched([tmp_path], lambda: os.rename(tmp_path / "new", tmp_path / "a"))


def test_a_directory_that_appears_later_is_watched(tmp_path: Path) -> None:
    late = tmp_path / "x" / "y"

    async def work() -> None:
        async with asyncio.timeout(LIMIT_S), aclosing(changes([late], quiet_s=0.05)) as rounds:
            await anext(rounds)
            late.mkdir(parents=True)
            await anext(rounds)
            (late / "a").touch()
            await anext(rounds)

    asyncio.run(work())


def test_a_directory_made_anew_is_watched_again(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()

    async def work() -> None:
        async with asyncio.timeout(LIMIT_S), aclosing(changes([directory], quiet_s=0.05)) as rounds:
            await anext(rounds)
            directory.rmdir()
            await anext(rounds)
            directory.mkdir()
            await anext(rounds)
            (directory / "a").touch()
            await anext(rounds)

    asyncio.run(work())


def test_a_burst_is_told_once(tmp_path: Path) -> None:
    def burst() -> None:
        for number in range(200):
            (tmp_path / str(number)).touch()

    assert asyncio.run(quiet_after([tmp_path], burst))


def test_closing_frees_the_descriptor(tmp_path: Path) -> None:
    async def work() -> list[str]:
        before = leaks.descriptors()
        async with aclosing(changes([tmp_path])) as rounds:
            await anext(rounds)
            assert len(leaks.opened(before)) == 1
        return leaks.new_descriptors(before)

    assert asyncio.run(work()) == []


def test_without_watches_the_reader_looks_now_and_then_until_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = iter([OSError(errno.EMFILE, "Too many open files")] * 3)
    real = watch.Inotify

    def scarce() -> object:
        for error in refusals:
            raise error
        return real()

    monkeypatch.setattr(watch, "Inotify", scarce)
    monkeypatch.setattr(watch, "UNWATCHED_S", 0.01)

    async def work() -> None:
        async with asyncio.timeout(LIMIT_S), aclosing(changes([tmp_path], quiet_s=0.05)) as rounds:
            for _ in range(4):  # three looks without watches, and the one when they stand
                await anext(rounds)
            (tmp_path / "a").touch()
            await anext(rounds)

    asyncio.run(work())
    assert [each.message for each in caplog.records].count("directories cannot be watched; looking at them now and then") == 1


def remembered(directory: Path) -> tuple[Remembered[list[str]], list[int]]:
    """The names in a directory, and how often they were read."""
    reads: list[int] = []

    def read() -> list[str]:
        reads.append(1)
        return sorted(os.listdir(directory)) if directory.is_dir() else []

    return Remembered([directory], read), reads


def test_what_is_remembered_is_read_once_while_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    known, reads = remembered(tmp_path)
    assert [known.get() for _ in range(3)] == [["a"]] * 3
    assert len(reads) == 1
    known.close()


def test_no_change_is_missed(tmp_path: Path) -> None:
    known, _ = remembered(tmp_path / "d")
    assert known.get() == []
    (tmp_path / "d").mkdir()
    assert known.get() == []
    for number in range(20):
        (tmp_path / "d" / f"{number:02}").touch()
        assert len(known.get()) == number + 1
    known.close()


def test_a_failed_reading_is_repeated(tmp_path: Path) -> None:
    answers: list[str] = ["bad", "good"]

    def read() -> str:
        if (answer := answers.pop(0)) == "bad":
            raise ValueError(answer)
        return answer

    known = Remembered([tmp_path], read)
    with pytest.raises(ValueError, match="bad"):
        known.get()
    assert [known.get(), known.get()] == ["good", "good"]
    known.close()


def test_without_a_watch_it_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(24, "too many")

    monkeypatch.setattr("criollo.aio.watch.Inotify", refused)
    known, reads = remembered(tmp_path)
    known.get()
    known.get()
    assert len(reads) == 2


def test_closing_lets_go_of_what_remembers(tmp_path: Path) -> None:
    before = leaks.descriptors()
    known, _ = remembered(tmp_path)
    known.get()
    assert len(leaks.opened(before)) == 1
    known.close()
    assert leaks.new_descriptors(before) == []


def test_who_still_holds_what_is_closed_gets_its_content_and_no_watch(tmp_path: Path) -> None:
    before = leaks.descriptors()
    known, reads = remembered(tmp_path)
    known.get()
    known.close()
    (tmp_path / "a").touch()
    assert [known.get(), known.get()] == [["a"]] * 2
    assert len(reads) == 3
    assert leaks.new_descriptors(before) == []
