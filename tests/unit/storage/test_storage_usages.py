"""What writable layers take, told from memory."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from criollo.aio.background import Background
from criollo.storage import usages
from criollo.storage.base import Usage
from criollo.storage.usages import Measured, Usages


def run(body: Callable[[Background], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with Background() as tasks:
            await body(tasks)

    asyncio.run(main())


def sizes(found: list[Measured | None]) -> list[int | None]:
    return [None if each is None else each.usage.bytes for each in found]


async def until(measured: Usages, names: list[str], wanted: list[int | None]) -> None:
    async with asyncio.timeout(30):
        while sizes(await measured.known(names)) != wanted:
            await asyncio.sleep(0.001)


def test_first_question_gets_the_first_measurement_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usages, "GRACE_S", 30)

    async def body(tasks: Background) -> None:
        measured = Usages(lambda name: Usage(len(name), 1), tasks)
        assert sizes(await measured.known(["a", "bb"])) == [1, 2]

    run(body)


def test_what_is_known_is_told_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measure(name: str) -> Usage:
        asked.append(name)
        return Usage(len(asked), 1)

    async def body(tasks: Background) -> None:
        measured = Usages(measure, tasks)
        await until(measured, ["a"], [1])
        assert sizes(await measured.known(["a"])) == [1]
        assert asked == ["a"]
        monkeypatch.setattr(usages, "LASTS_S", 0)
        measured.forget("a")
        await until(measured, ["a"], [2])
        await until(measured, ["a"], [3])

    run(body)


def test_who_asks_for_one_gets_it_measured_anew_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usages, "GRACE_S", 30)
    asked: list[str] = []

    def measure(name: str) -> Usage:
        asked.append(name)
        return Usage(len(asked), 1)

    async def body(tasks: Background) -> None:
        measured = Usages(measure, tasks)
        assert [sizes(await measured.known(["a"], fresh=True)) for _ in range(3)] == [[1], [2], [3]]
        assert sizes(await measured.known(["a"])) == [3]
        monkeypatch.setattr(usages, "GRACE_S", 0)  # now it counts as slow
        assert sizes(await measured.known(["a"], fresh=True)) == [3]

    run(body)


def test_one_that_hangs_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def measure(name: str) -> Usage:
        if name == "hung":
            release.wait(60)
        return Usage(7, 1)

    async def body(tasks: Background) -> None:
        measured = Usages(measure, tasks, stall_s=0.05)
        await until(measured, ["hung", "a", "b"], [None, 7, 7])
        release.set()
        await until(measured, ["hung"], [7])  # late is not lost

    run(body)
    assert "file system does not answer" in caplog.text


def test_so_many_hang_that_measuring_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    release, begun = threading.Event(), []

    def measure(name: str) -> Usage:
        begun.append(name)
        release.wait(60)
        return Usage(7, 1)

    async def body(tasks: Background) -> None:
        names = [f"{number}" for number in range(9)]
        measured = Usages(measure, tasks, stall_s=0.01)
        async with asyncio.timeout(30):
            while len(begun) < usages._MOST_LOST:
                assert sizes(await measured.known(names)) == [None] * 9
                await asyncio.sleep(0.001)
        await measured.known(names)
        assert len(begun) == usages._MOST_LOST
        release.set()
        await until(measured, names, [7] * 9)

    run(body)


def test_who_was_left_behind_takes_nothing_more() -> None:
    release, begun = threading.Event(), []

    def measure(name: str) -> Usage:
        begun.append(name)
        release.wait(60)
        return Usage(7, 1)

    class Slow(deque[str]):
        """The first that takes something is left behind as it does so."""

        is_first = True

        def popleft(self) -> str:
            if self.is_first:
                self.is_first, turn, gives_up = False, measured._turn, time.monotonic() + 0.5
                while measured._turn is turn and time.monotonic() < gives_up:
                    time.sleep(0.001)
            return super().popleft()

    async def body(tasks: Background) -> None:
        nonlocal measured
        names = [f"{number}" for number in range(9)]
        measured = Usages(measure, tasks, stall_s=0.01)
        measured._waiting = Slow()
        async with asyncio.timeout(30):
            while len(measured._lost) < usages._MOST_LOST:
                await measured.known(names)
                await asyncio.sleep(0.001)
        assert len(begun) == usages._MOST_LOST
        release.set()
        await until(measured, names, [7] * 9)

    measured: Usages
    run(body)


def test_one_that_cannot_be_measured_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    def measure(name: str) -> Usage:
        if name == "bad":
            raise OSError("no directory")
        return Usage(1, 1)

    async def body(tasks: Background) -> None:
        await until(Usages(measure, tasks), ["bad", "good"], [None, 1])

    run(body)
    assert caplog.text.count("writable layer not measured") == 1


def test_layers_that_take_long_are_measured_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usages, "LASTS_S", 0)
    monkeypatch.setattr(usages, "_QUICK_S", 0)
    monkeypatch.setattr(usages, "_SHARE", 10_000)
    asked: list[str] = []

    def measure(name: str) -> Usage:
        asked.append(name)
        threading.Event().wait(0.05)
        return Usage(1, 1)

    async def body(tasks: Background) -> None:
        measured = Usages(measure, tasks)
        await until(measured, ["a"], [1])
        for _ in range(20):
            await measured.known(["a"])
        assert asked == ["a"]

    run(body)


def test_nothing_is_left_of_a_layer_that_went_while_it_was_measured() -> None:
    release = threading.Event()

    def measure(name: str) -> Usage:
        release.wait(60)
        return Usage(1, 1)

    async def body(tasks: Background) -> None:
        measured = Usages(measure, tasks)
        await measured.known(["a"])
        measured.forget("a")
        release.set()
        await until(measured, ["b"], [1])
        assert set(measured._layers) == {"b"}

    run(body)
