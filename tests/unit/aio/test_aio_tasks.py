"""The small tools of tasks: locks, background work, several at once, cleaning up."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from criollo.aio.background import Background
from criollo.aio.cleanup import cleanup
from criollo.aio.locks import KeyedLocks, KeyedSlots
from criollo.aio.together import all_through, first, together
from criollo.errors import HostFailed, NotFound


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def returning(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def failing(text: str) -> int:
    await asyncio.sleep(0)
    raise HostFailed(text)


# Locks


def test_holders_of_one_key_take_turns_and_others_do_not_notice() -> None:
    async def main() -> None:
        locks, order = KeyedLocks(), []

        async def hold(key: str, name: str) -> None:
            async with locks.hold(key):
                order.append(f"{name} in")
                await turns()
                order.append(f"{name} out")

        async with asyncio.TaskGroup() as group:
            for key, name in (("a", "1"), ("a", "2"), ("b", "3")):
                group.create_task(hold(key, name))
        assert order.index("1 out") < order.index("2 in")
        assert order.index("3 in") < order.index("1 out")
        assert not locks.is_held("a")
        assert locks._locks == {}

    asyncio.run(main())


def test_a_cancelled_waiter_leaves_the_lock_to_the_next() -> None:
    async def main() -> None:
        locks = KeyedLocks()

        async def hold() -> None:
            async with locks.hold("a"):
                pass

        async with asyncio.TaskGroup() as group, locks.hold("a"):
            waiters = [group.create_task(hold()) for _ in range(2)]
            await turns()
            waiters[0].cancel()
            await turns()
            assert locks.is_held("a")
        assert locks._locks == {}

    asyncio.run(main())


def test_slots_are_limited_by_key() -> None:
    async def main() -> None:
        slots, inside, most = KeyedSlots(2), {"a": 0, "b": 0}, {"a": 0, "b": 0}

        async def hold(key: str) -> None:
            async with slots.hold(key):
                inside[key] += 1
                most[key] = max(most[key], inside[key])
                await turns()
                inside[key] -= 1

        async with asyncio.TaskGroup() as group:
            for key in "aaaaab":
                group.create_task(hold(key))
        assert most == {"a": 2, "b": 1}
        assert slots._slots == {}

    asyncio.run(main())


# Background


def test_background_work_ends_with_its_block() -> None:
    async def main() -> None:
        ended = []

        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        async with Background() as tasks:
            tasks.start(forever(), name="one")
            tasks.start(forever(), name="two")
            await turns()
        assert ended == [True, True]

    asyncio.run(main())


def test_background_work_that_fails_ends_the_block_with_its_error() -> None:
    async def main() -> None:
        async with Background() as tasks:
            tasks.start(failing("lost it"), name="one")
            await asyncio.Event().wait()

    with pytest.raises(HostFailed, match="lost it"):
        asyncio.run(main())


def test_the_blocks_own_error_is_its_own() -> None:
    async def main() -> None:
        async with Background() as tasks:
            tasks.start(asyncio.Event().wait(), name="one")
            raise NotFound("thing", "x")

    with pytest.raises(NotFound):
        asyncio.run(main())


def test_work_that_is_started_while_the_block_ends_ends_too() -> None:
    async def main() -> None:
        ended = []

        async def forever() -> None:
            await asyncio.Event().wait()

        async def starts_another() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                tasks.start(forever(), name="two")
                ended.append(True)

        async with asyncio.timeout(60), Background() as tasks:
            tasks.start(starts_another(), name="one")
            await turns()
        assert ended == [True]

    asyncio.run(main())


# Several at once


def test_together_gives_the_results_in_order() -> None:
    assert asyncio.run(together(returning(each) for each in (3, 1, 2))) == [3, 1, 2]


def test_the_first_error_cancels_the_others_and_comes_alone() -> None:
    async def main() -> None:
        cancelled = []

        async def waiting() -> int:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return 0

        with pytest.raises(HostFailed, match="bad"):
            await together((waiting(), failing("bad")))
        assert cancelled == [True]

    asyncio.run(main())


def test_all_through_runs_each_to_its_end_and_tells_every_error() -> None:
    async def main() -> None:
        done = []

        async def slow() -> None:
            await turns(10)
            done.append(True)

        with pytest.raises(HostFailed, match="one") as caught:
            await all_through((failing("one"), slow(), failing("two")))
        assert done == [True]
        assert caught.value.__notes__ == ["two"]
        await all_through(())

    asyncio.run(main())


def test_first_cancels_the_slower_ones() -> None:
    async def main() -> None:
        cancelled = []

        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)

        await first(slow(), returning(1), slow())
        assert cancelled == [True, True]
        with pytest.raises(HostFailed):
            await first(slow(), failing("x"))

    asyncio.run(main())


def test_first_waits_for_the_slower_ones_however_often_it_is_cancelled() -> None:
    async def main() -> None:
        ended = []

        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await cleanup(turns(10))
                ended.append(True)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(first(slow(), slow()))
            for _ in range(3):
                await turns(1)
                waiting.cancel()
        assert (waiting.cancelled(), ended) == (True, [True, True])

    asyncio.run(main())


# Cleaning up


def test_cleanup_ends_its_work_however_often_it_is_cancelled() -> None:
    async def main() -> None:
        done = []

        async def work() -> None:
            await turns(10)
            done.append(True)

        async with asyncio.TaskGroup() as group:
            cleaning = group.create_task(cleanup(work()))
            for _ in range(5):
                await turns(1)
                cleaning.cancel()
        assert done == [True]

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_cancellation_during_a_cleanup_comes_after_it_unless_there_is_an_error_to_tell(fails: bool) -> None:
    done = []

    async def work() -> None:
        await turns(10)
        done.append("cleaned")

    async def caller() -> None:
        try:
            if fails:
                raise HostFailed("first")
        finally:
            await cleanup(work())

    async def main() -> None:
        with pytest.raises(HostFailed if fails else asyncio.CancelledError):
            await _cancelled_meanwhile(caller())

    asyncio.run(main())
    assert done == ["cleaned"]


async def _cancelled_meanwhile(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    await turns(3)
    task.cancel()
    await task


def test_cleanup_never_raises_and_has_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await cleanup(failing("still mounted"), what="pod x")
        await cleanup(asyncio.Event().wait(), limit_s=0.01, what="pod y")

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.text.count("cleanup failed; the sweeper will retry") == 2


def test_the_first_error_stays_the_one_that_is_told() -> None:
    async def main() -> None:
        try:
            await failing("first")
        except HostFailed:
            await cleanup(failing("second"))
            raise

    with pytest.raises(HostFailed, match="first"):
        asyncio.run(main())
