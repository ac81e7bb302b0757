"""daemon.patience: a start waits for each object, but not for ever."""

import asyncio

import pytest

from criollo.aio.background import Background
from criollo.daemon import patience


def test_work_that_ends_is_waited_for() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append("done")

    async def test() -> None:
        async with Background() as tasks:
            await patience.awhile(tasks, work(), "x")
            assert done == ["done"]

    asyncio.run(test())


def test_work_that_hangs_goes_on_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAIT_S", 0.01)

    async def test() -> None:
        gate, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await gate.wait()
            ended.set()

        async with Background() as tasks:
            await patience.awhile(tasks, work(), "x")
            assert not ended.is_set()
            gate.set()
            await ended.wait()

    asyncio.run(test())


def test_a_bug_in_the_work_is_loud() -> None:
    async def work() -> None:
        raise RuntimeError("a bug")

    async def test() -> None:
        async with Background() as tasks:
            await patience.awhile(tasks, work(), "x")

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(test())
