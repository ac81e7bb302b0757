"""Threads: who is cancelled waits for what it has begun."""

import asyncio
import functools
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from criollo.aio import threads
from criollo.errors import Exhausted

POOLS = [threads.files, threads.mounts, threads.spawning, threads.transfers, threads.databases, threads.fresh]


@pytest.mark.parametrize("pool", POOLS)
def test_results_and_errors_come_back(pool: Callable[..., Any]) -> None:
    def fail() -> None:
        raise ValueError("bad")

    async def main() -> None:
        assert await pool(lambda a, *, b: a + b, 1, b=2) == 3
        assert await pool(threading.get_ident) != threading.get_ident()
        with pytest.raises(ValueError, match="bad"):
            await pool(fail)

    asyncio.run(main())


@pytest.mark.parametrize("pool", POOLS)
def test_a_cancelled_caller_waits_until_its_call_has_ended(pool: Callable[..., Any]) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(60)
        ended.set()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(pool(work))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0.001)
            assert not task.done()
            go.set()
        assert task.cancelled()
        assert ended.is_set()

    asyncio.run(main())


def test_cancelled_again_in_the_moment_its_call_ends_a_caller_leaves_nothing_unawaited() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(threads._until_done(future))
            for _ in range(2):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.sleep(0)
            future.set_result(None)
            task.cancel()
        assert task.cancelled()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert [str(each.message) for each in told] == []


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_a_cancelled_caller_cannot_have_is_taken_back(is_cancelled: bool) -> None:
    begun, go, taken = threading.Event(), threading.Event(), list[str]()

    def make() -> str:
        begun.set()
        assert go.wait(60)
        return "made"

    async def take_back(made: str) -> None:
        taken.append(made)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(threads.handed_over(make, take_back))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            if is_cancelled:
                task.cancel()
            await asyncio.sleep(0)
            go.set()
        assert task.cancelled() == is_cancelled
        assert is_cancelled or task.result() == "made"

    asyncio.run(main())
    assert taken == (["made"] if is_cancelled else [])


def test_an_interruptible_transfer_is_told_to_end() -> None:
    stop = threading.Event()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(threads.interruptible_transfer(lambda: stop.wait(60), stop.set))
            await asyncio.sleep(0.01)
            task.cancel()
        assert task.cancelled()

    asyncio.run(main())
    assert stop.is_set()


def test_a_fresh_thread_is_gone_after_its_call() -> None:
    async def main() -> int:
        return await threads.fresh(threading.get_native_id)

    thread = asyncio.run(main())
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/self/task/{thread}"):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to unshare")
def test_a_forsaken_call_gives_its_result_or_is_left_behind() -> None:
    release, ended = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(60)
        ended.set()

    async def main() -> None:
        assert await threads.forsaken(60, lambda word: word, "told") == "told"
        with pytest.raises(ZeroDivisionError):
            await threads.forsaken(60, lambda: 1 // 0)
        with pytest.raises(TimeoutError):
            await threads.forsaken(0.01, hang)
        release.set()
        while not ended.is_set():
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_threads_of_mounts_have_a_directory_of_their_own(tmp_path: Any) -> None:
    async def main() -> None:
        await threads.mounts(os.chdir, tmp_path)

    before = os.getcwd()
    asyncio.run(main())
    assert os.getcwd() == before


def test_closing_waits_for_calls_in_progress() -> None:
    ended = []

    def work() -> None:
        time.sleep(0.05)
        ended.append(True)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(threads.files(work))

    asyncio.run(main())
    threads.close()
    assert ended == [True]


def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("pool", [*POOLS, functools.partial(threads.forsaken, 10)])
def test_without_a_thread_work_is_refused_and_not_done_later(pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async def main() -> None:
        with monkeypatch.context() as patched:
            no_more_threads(patched)
            with pytest.raises(Exhausted, match=r"cannot start a thread: .* raise TasksMax"):
                await pool(done.append, "refused")
        await pool(done.append, "later")

    threads.close()
    asyncio.run(main())
    assert done == ["later"]


def test_without_a_further_thread_those_that_are_there_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        gate = threading.Event()
        async with asyncio.TaskGroup() as group:
            held = group.create_task(threads.databases(gate.wait, 10))
            while "databases" not in threads._pools or not threads._pools["databases"]._threads:
                await asyncio.sleep(0)
            no_more_threads(monkeypatch)
            waits = group.create_task(threads.databases(int, "7"))
            await asyncio.sleep(0)
            gate.set()
        assert (held.result(), waits.result()) == (True, 7)

    threads.close()
    asyncio.run(main())
    threads.close()
