"""Signals while a verb works: they end it in order, the innermost block hears them first, and ignored ones stay ignored."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from criollo.kpod.signals import Ended, heard, orderly_end


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by whoever runs the tests, perhaps
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before
    signal.signal(signal.SIGHUP, ignored)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_in_order(number: int) -> None:
    async def main() -> None:
        with orderly_end():
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()

    with pytest.raises(Ended) as caught:
        asyncio.run(main())
    assert caught.value.status == 128 + number


def test_another_cancellation_passes() -> None:
    async def main() -> None:
        async with asyncio.timeout(0):
            with orderly_end():
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_an_inner_block_hears_first_and_the_outer_one_again_afterwards() -> None:
    told: list[str] = []

    async def main() -> None:
        with heard((signal.SIGTERM,), lambda number: told.append("outer")):
            for _ in range(2):
                with heard((signal.SIGTERM, signal.SIGHUP), lambda number: told.append("inner")):
                    os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.sleep(0.01)
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert told == ["inner", "outer"] * 2


def test_what_is_ignored_stays_so() -> None:
    async def main() -> None:
        with orderly_end():
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.01)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asyncio.run(main())
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
