"""aio.watch: directories watched, bursts debounced."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

from criollo.aio.watch import changes

LIMIT_S = 20


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
    async def work() -> tuple[int, int]:
        before = len(os.listdir("/proc/self/fd"))
        async with aclosing(changes([tmp_path])) as rounds:
            await anext(rounds)
        return before, len(os.listdir("/proc/self/fd"))

    before, after = asyncio.run(work())
    assert after == before
