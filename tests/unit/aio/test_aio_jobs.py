"""Jobs: one per name, joined by requests, surviving them."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.waiting import skip_ahead_when

from criollo.aio.jobs import JOINED, Job, Jobs
from criollo.errors import CriolloError, HostFailed, NotFound, Unavailable, WrongState
from criollo.telemetry import hooks, trail
from criollo.telemetry.log import Logger
from criollo.telemetry.node_metrics import NodeMetrics
from criollo.telemetry.trail import Trail


class Scene:
    """A job that waits at a gate, and what became of it."""

    def __init__(self) -> None:
        self.jobs: Jobs[str] = Jobs("make thing")
        self.gate = asyncio.Event()
        self.started = 0
        self.orphans: list[str] = []
        self.cleaned = False

    async def work(self, job: Job[str]) -> str:
        self.started += 1
        job.stage("at the gate")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cleaned = True
            raise
        return f"thing {self.started}"

    async def orphaned(self, result: str) -> None:
        self.orphans.append(result)

    async def request(self, key: str = "a") -> str:
        return await self.jobs.join(key, self.work, orphaned=self.orphaned)


def play(scenario: Callable[[Scene, asyncio.TaskGroup], Coroutine[Any, Any, None]]) -> Scene:
    async def main() -> Scene:
        scene = Scene()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            await scenario(scene, group)
        assert len(scene.jobs) == 0
        return scene

    return asyncio.run(main())


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_requests_of_one_name_share_a_job() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        requests = [group.create_task(scene.request()) for _ in range(3)]
        other = group.create_task(scene.request("b"))
        await turns()
        assert len(scene.jobs) == 2
        scene.gate.set()
        assert len({await each for each in requests}) == 1
        await other

    scene = play(scenario)
    assert (scene.started, scene.orphans) == (2, [])


def test_a_job_outlives_a_request_that_goes_away() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        gone, staying = group.create_task(scene.request()), group.create_task(scene.request())
        await turns()
        gone.cancel()
        await turns()
        scene.gate.set()
        assert await staying == "thing 1"

    assert play(scenario).orphans == []


def test_a_result_that_nobody_takes_is_told() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        request = group.create_task(scene.request())
        await turns()
        request.cancel()
        await turns()
        scene.gate.set()
        await turns(5)

    assert play(scenario).orphans == ["thing 1"]


@pytest.mark.parametrize("pause", range(6))
def test_a_result_is_taken_or_told_whenever_the_request_goes_away(pause: int) -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        request = group.create_task(scene.request())
        await turns()
        scene.gate.set()
        await turns(pause)
        request.cancel()
        await turns(6)
        assert (scene.orphans == ["thing 1"]) == request.cancelled()

    play(scenario)


@pytest.mark.parametrize("pause", range(6))
def test_a_result_that_one_took_is_no_orphan_of_another(pause: int) -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        taking, leaving = group.create_task(scene.request()), group.create_task(scene.request())
        await turns()
        scene.gate.set()
        await turns(pause)
        leaving.cancel()
        assert await taking == "thing 1"
        await turns(6)

    assert play(scenario).orphans == []


def test_who_waits_too_long_is_told_the_stage() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        group.create_task(skip_ahead_when(lambda: scene.started, 30))
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(30):
                await scene.request()
        assert "at stage 'at the gate'" in "".join(caught.value.__context__.__notes__)  # type: ignore[union-attr]
        scene.gate.set()
        await turns(5)

    play(scenario)


def test_all_waiters_get_the_error() -> None:
    async def fail(job: Job[str]) -> str:
        await asyncio.sleep(0)
        raise HostFailed("no luck")

    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        async def request() -> str:
            with pytest.raises(HostFailed) as caught:
                await scene.jobs.join("a", fail)
            return str(caught.value)

        requests = [group.create_task(request()) for _ in range(2)]
        assert [await each for each in requests] == ["no luck"] * 2

    play(scenario)


def test_a_name_can_be_used_again_after_an_error() -> None:
    async def fail(job: Job[str]) -> str:
        raise HostFailed("no luck")

    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        with pytest.raises(HostFailed):
            await scene.jobs.join("a", fail)
        scene.gate.set()
        assert await scene.request() == "thing 1"

    play(scenario)


def test_an_abandoned_job_has_cleaned_up_and_its_waiters_know_why() -> None:
    why = WrongState("pod", "p", "being stopped", "READY")

    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        async def request() -> CriolloError:
            with pytest.raises(WrongState) as caught:
                await scene.request()
            return caught.value

        requests = [group.create_task(request()) for _ in range(2)]
        await turns()
        await scene.jobs.abandon("a", why)
        assert scene.cleaned
        assert [await each for each in requests] == [why] * 2
        await scene.jobs.abandon("a", why)

    play(scenario)


def test_a_job_that_is_abandoned_before_it_begins_leaves_its_name_free() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        async def request() -> None:
            with pytest.raises(WrongState):
                await scene.request()

        group.create_task(request())
        group.create_task(scene.jobs.abandon("a", WrongState("pod", "p", "being stopped", "READY")))
        await turns(6)
        scene.gate.set()
        assert len(scene.jobs) == 0
        assert await scene.request() == f"thing {scene.started}"

    play(scenario)


def test_closing_waits_then_cancels_and_refuses() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        async def request() -> None:
            with pytest.raises(Unavailable, match="shutting down"):
                await scene.request()

        waiting = group.create_task(request())
        await turns()
        await scene.jobs.close(limit_s=0.01)
        assert scene.cleaned
        await waiting
        with pytest.raises(Unavailable, match="shutting down"):
            await scene.request("b")

    play(scenario)


def test_closing_lets_a_job_finish() -> None:
    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        waiting = group.create_task(scene.request())
        await turns()
        closing = group.create_task(scene.jobs.close(limit_s=10))
        await turns()
        scene.gate.set()
        assert await waiting == "thing 1"
        await closing

    assert not play(scenario).cleaned


def test_joined_job_is_counted_by_its_stage_and_leaves_a_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = NodeMetrics()
    monkeypatch.setattr(hooks, "metrics", counted)
    trails: list[Trail] = []

    async def main() -> None:
        jobs: Jobs[int] = Jobs("create container")
        go = asyncio.Event()

        async def work(job: Job[int]) -> int:
            trails.append(job.trail)
            job.stage("container volume configuration")
            await go.wait()
            assert trail.current() is job.trail
            return 1

        async with asyncio.TaskGroup() as group:
            first = group.create_task(jobs.join("k", work))
            while not trails:
                await asyncio.sleep(0)
            second = group.create_task(jobs.join("k", work))
            await asyncio.sleep(0)
            go.set()
        assert (first.result(), second.result()) == (1, 1)

    asyncio.run(main())
    assert 'resources_stalled_at_stage{stage="container volume configuration"} 1' in counted.page()
    assert [(each.kind, each.name, each.error) for each in trails] == [("create container", "k", "")]


def test_trail_of_a_job_that_was_abandoned_says_why() -> None:
    trails: list[Trail] = []

    async def main() -> None:
        jobs: Jobs[None] = Jobs("make")

        async def work(job: Job[None]) -> None:
            trails.append(job.trail)
            await asyncio.Event().wait()

        async def wait() -> None:
            with pytest.raises(NotFound):
                await jobs.join("k", work)

        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            while not trails:
                await asyncio.sleep(0)
            await jobs.abandon("k", NotFound("pod", "p"))

    asyncio.run(main())
    assert trails[0].error == "pod p not found"


def test_line_about_a_joined_job_has_the_words_that_operators_look_for() -> None:
    assert "not yet finished. Currently at stage" in JOINED
    assert "joined a running job" in JOINED


class Waiting:
    """A job that waits for something before it has made anything."""

    def __init__(self) -> None:
        self.jobs: Jobs[str] = Jobs("make thing")
        self.came = asyncio.Event()
        self.started = False

    async def request(self) -> str:
        async def work(job: Job[str]) -> str:
            job.stage("waiting")
            self.started = True
            with job.while_awaited("no network"):
                await self.came.wait()
            return "thing"

        return await self.jobs.join("a", work)


def test_what_waits_before_it_has_made_anything_ends_with_its_last_request() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(waiting.request()) for _ in range(2))
            await turns()
            first.cancel()
            await turns()
            assert len(waiting.jobs) == 1
            second.cancel()
            await turns()
            assert len(waiting.jobs) == 0

    asyncio.run(main())


def test_who_waited_in_vain_is_told_for_what() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with asyncio.TaskGroup() as group:
            group.create_task(skip_ahead_when(lambda: waiting.started, 30))
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(30):
                    await waiting.request()
        assert "at stage 'waiting': no network" in "".join(caught.value.__context__.__notes__)  # type: ignore[union-attr]

    asyncio.run(main())


def test_what_only_waits_does_not_hold_up_a_shutdown() -> None:
    async def main() -> None:
        waiting = Waiting()

        async def request() -> None:
            with pytest.raises(Unavailable, match="shutting down"):
                await waiting.request()

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(request())
            await turns()
            await waiting.jobs.close(limit_s=60)

    asyncio.run(main())


def test_when_it_comes_the_job_goes_on() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with asyncio.TaskGroup() as group:
            request = group.create_task(waiting.request())
            await turns()
            waiting.came.set()
        assert request.result() == "thing"

    asyncio.run(main())


def test_an_error_that_nobody_waits_for_is_told_once_and_not_by_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    told: list[str] = []  # not the records, which keep the error and so its task
    monkeypatch.setattr(Logger, "warning", lambda _, message, **fields: told.append(message))

    async def scenario(scene: Scene, group: asyncio.TaskGroup) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))

        async def fails(job: Job[str]) -> str:
            await scene.gate.wait()
            raise HostFailed("no")

        request = group.create_task(scene.jobs.join("a", fails))
        await turns()
        request.cancel()
        await turns()
        del request
        scene.gate.set()
        await turns()
        gc.collect()

    play(scenario)
    assert (told, reported) == (["job failed with nobody waiting"], [])
