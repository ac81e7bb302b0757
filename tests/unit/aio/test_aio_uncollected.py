"""Results whose client went away: unseen, torn down in time, unless it asks again."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from criollo.aio.background import Background
from criollo.aio.jobs import Job, Jobs
from criollo.aio.uncollected import Uncollected
from criollo.errors import HostFailed


class Scene:
    """A job that waits at a gate, and what was torn down of its results."""

    def __init__(self, tasks: Background, *, keep_s: float, fails: Exception | None) -> None:
        self.jobs: Jobs[str] = Jobs("make thing")
        self.ids: set[str] = set()
        self.gate = asyncio.Event()
        self.torn: list[str] = []
        self.fails = fails
        self.uncollected = Uncollected[str](self.ids, tasks, keep_s=keep_s, tear_down=self.tear_down)

    async def tear_down(self, made: str) -> None:
        self.torn.append(made)
        if self.fails is not None:
            raise self.fails

    async def request(self) -> str:
        async def work(job: Job[str]) -> str:
            await self.gate.wait()
            return "thing"

        return await self.uncollected.join(self.jobs, "a", work)

    async def leave_one(self) -> None:
        """A request goes away, and its result comes."""
        async with asyncio.TaskGroup() as group:
            request = group.create_task(self.request())
            await turns()
            request.cancel()
            await turns()
            self.gate.set()
            await turns()


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def play(
    scenario: Callable[[Scene], Coroutine[Any, Any, None]], *, keep_s: float = 60, fails: Exception | None = None
) -> Scene:
    async def main() -> Scene:
        async with asyncio.timeout(60), Background() as tasks:
            scene = Scene(tasks, keep_s=keep_s, fails=fails)
            await scenario(scene)
        return scene

    return asyncio.run(main())


def test_a_result_that_is_taken_is_left_alone() -> None:
    async def scenario(scene: Scene) -> None:
        scene.gate.set()
        assert await scene.request() == "thing"

    scene = play(scenario)
    assert (scene.ids, scene.torn) == (set(), [])


def test_a_result_that_nobody_took_is_unseen() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.leave_one()
        assert scene.ids == {"thing"}

    assert play(scenario).torn == []


def test_who_asks_again_collects_it() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.leave_one()
        await scene.request()

    assert play(scenario).ids == set()


@pytest.mark.parametrize("fails", [None, HostFailed("the host refused"), OSError(errno.EBUSY, "busy")])
def test_in_the_end_it_is_torn_down_and_what_is_left_is_seen(fails: Exception | None) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.leave_one()
        while scene.ids:
            await asyncio.sleep(0)

    assert play(scenario, keep_s=0, fails=fails).torn == ["thing"]
