"""network.turns: many share, or one is alone."""

import asyncio

from criollo.network.turns import Turns


def test_sharers_run_together() -> None:
    async def work() -> None:
        turns = Turns()
        async with asyncio.timeout(60), turns.shared(), turns.shared():
            pass

    asyncio.run(work())


def test_alone_waits_for_sharers_and_keeps_new_ones_out() -> None:
    seen: list[str] = []

    async def alone(turns: Turns) -> None:
        async with turns.alone():
            seen.append("alone")

    async def sharer(turns: Turns) -> None:
        async with turns.shared():
            seen.append("late sharer")

    async def work() -> None:
        turns = Turns()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group, turns.shared():
            group.create_task(alone(turns))
            await asyncio.sleep(0)
            group.create_task(sharer(turns))
            for _ in range(10):
                await asyncio.sleep(0)
            assert seen == []

    asyncio.run(work())
    assert seen == ["alone", "late sharer"]


def test_a_cancelled_waiter_blocks_nobody() -> None:
    async def wait_alone(turns: Turns) -> None:
        async with turns.alone():
            raise AssertionError("never its turn")

    async def work() -> None:
        turns = Turns()
        async with asyncio.timeout(60):
            async with turns.shared(), asyncio.TaskGroup() as group:
                waiter = group.create_task(wait_alone(turns))
                await asyncio.sleep(0)
                waiter.cancel()
            async with turns.shared():
                pass

    asyncio.run(work())
