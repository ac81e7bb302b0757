"""images.progress: what is told, and when a pull counts as stalled."""

import asyncio

import pytest

from criollo.aio.together import first
from criollo.errors import TimedOut
from criollo.images.progress import LayerProgress, PullProgress


def pull_of(*stages: str) -> PullProgress:
    progress = PullProgress("a.example/b:c")
    for number, stage in enumerate(stages):
        layer = LayerProgress(f"sha256:{number}", 100)
        layer.stage = stage
        progress.layers.append(layer)
    return progress


def test_silence_while_a_byte_is_expected_ends_the_watch() -> None:
    with pytest.raises(TimedOut, match=r"cannot pull a\.example/b:c: no byte arrived for 0\.01 s"):
        asyncio.run(pull_of("here", "pulling", "waiting").watch(0.01))


@pytest.mark.parametrize("stages", [(), ("waiting",), ("unpacking", "here")])
def test_a_queue_or_a_busy_disk_is_no_silence(stages: tuple[str, ...]) -> None:
    asyncio.run(first(pull_of(*stages).watch(0.01), asyncio.sleep(0.1)))


def test_bytes_that_come_renew_the_patience() -> None:
    progress = pull_of("pulling")

    async def arrive() -> None:
        for _ in range(20):
            await asyncio.sleep(0.01)
            progress.arrived(progress.layers[0], 1)

    asyncio.run(first(progress.watch(1), arrive()))
    assert progress.as_document() == {
        "reference": "a.example/b:c",
        "layers": [{"digest": "sha256:0", "size": 100, "done": 20, "stage": "pulling"}],
    }
