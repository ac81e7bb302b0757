"""images.progress: what is told, and when a pull counts as stalled."""

import asyncio
import contextlib

import pytest

from criollo.aio.together import first
from criollo.errors import TimedOut, Unavailable
from criollo.images import progress as images_progress
from criollo.images.progress import REMEMBERED, Board, LayerProgress, Progress, changes
from criollo.model.transfer import Event, LayerState
from criollo.registry.endpoints import Endpoint


class Clock:
    """Goes on when it is told to: a machine that is slow makes nothing look silent."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def passes(self, seconds: float) -> None:
        """And the watch has looked meanwhile."""
        self.now += seconds
        await asyncio.sleep(0.003)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(images_progress, "time", made)
    return made


def pull_of(*stages: str) -> Progress:
    progress = Progress("a.example/b:c")
    for number, stage in enumerate(stages):
        layer = LayerProgress(f"sha256:{number}", 100)
        layer.stage = stage
        progress.layers.append(layer)
    return progress


def test_silence_while_a_byte_is_expected_ends_the_watch() -> None:
    with pytest.raises(TimedOut, match=r"cannot pull a\.example/b:c: no byte arrived for 0\.01 s"):
        asyncio.run(pull_of("here", "pulling", "waiting").watch(0.01))


def test_silence_while_a_document_is_expected_ends_the_watch_with_the_words_people_look_for() -> None:
    progress = pull_of()
    progress.asks = True
    with pytest.raises(TimedOut, match=r"Timed out on waiting up to 0\.01s, context canceled"):
        asyncio.run(progress.watch(0.01))


def test_pieces_of_documents_renew_the_patience(clock: Clock) -> None:
    progress = pull_of()
    progress.asks = True

    async def arrive() -> None:
        for _ in range(20):
            await clock.passes(0.008)
            progress.noticed()

    asyncio.run(first(progress.watch(0.01), arrive()))


@pytest.mark.parametrize("stages", [(), ("waiting",), ("unpacking", "here")])
def test_a_queue_or_a_busy_disk_is_no_silence(stages: tuple[str, ...], clock: Clock) -> None:
    async def wait() -> None:
        for _ in range(20):
            await clock.passes(0.008)

    asyncio.run(first(pull_of(*stages).watch(0.01), wait()))


def test_bytes_that_come_renew_the_patience(clock: Clock) -> None:
    progress = pull_of("pulling")

    async def arrive() -> None:
        for _ in range(20):
            await clock.passes(0.008)
            progress.arrived(progress.layers[0], 1)

    asyncio.run(first(progress.watch(0.01), arrive()))
    assert progress.state().layers == [LayerState(digest="sha256:0", size=100, done=20, stage="pulling")]


class Job:
    key = "k"
    at_stage = "layers"


def collected(progress: Progress, *, until: int) -> list[list[Event]]:
    """What a reader is told that asks `until` times."""

    async def read() -> list[list[Event]]:
        looks = changes(progress, every_s=0.001)
        return [await anext(looks) for _ in range(until)]

    return asyncio.run(read())


def test_a_reader_is_told_the_whole_first_and_then_what_changed() -> None:
    async def body() -> None:
        progress = pull_of("pulling", "waiting")
        progress.job = Job()
        looks = changes(progress, every_s=0.001)
        first_look = await anext(looks)
        assert [each.type for each in first_look] == ["begin", "stage", "layer", "layer"]
        progress.arrived(progress.layers[0], 7)
        [change] = await anext(looks)
        assert (change.type, change.place, change.layer) == ("layer", 0, progress.layers[0].state())
        await looks.aclose()

    asyncio.run(body())


def test_a_slow_reader_gets_the_newest_state_alone() -> None:
    async def body() -> None:
        progress = pull_of("pulling")
        looks = changes(progress, every_s=0.001)
        await anext(looks)
        for _ in range(1000):
            progress.arrived(progress.layers[0], 1)
        [change] = await anext(looks)
        assert change.layer is not None
        assert change.layer.done == 1000
        await looks.aclose()

    asyncio.run(body())


def test_the_last_event_says_how_it_ended() -> None:
    for failure, last in ((None, Event(type="result", image="1" * 64)), (Unavailable("no"), Event(type="error", error="no"))):
        progress, board = pull_of("here"), Board()
        with contextlib.suppress(Unavailable), board.shown(progress):
            if failure is not None:
                raise failure
            progress.image = "1" * 64
        [[*_, told]] = collected(progress, until=1)
        assert told == last


def test_retries_and_servers_are_counted() -> None:
    progress = pull_of("pulling", "pulling")
    for host in ("mirror", "home"):
        progress.came_from(progress.layers[1], Endpoint(host=host, repository="r"))
    assert [(each.retries, each.source) for each in progress.state().layers] == [(0, ""), (1, "home/r")]


def test_a_transfer_is_found_by_its_id_also_when_it_has_ended() -> None:
    board, one = Board(), Progress("a.example/b:c")
    with board.shown(one):
        assert (board.running(), board.find(one.id), board.find("nothing")) == ([one], one, None)
    assert (board.running(), board.find(one.id)) == ([], one)


def test_only_a_few_that_ended_are_remembered() -> None:
    board, many = Board(), [Progress("x.example/y:z") for _ in range(REMEMBERED + 1)]
    for each in many:
        with board.shown(each):
            pass
    assert [board.find(each.id) is each for each in many] == [False] + [True] * REMEMBERED
