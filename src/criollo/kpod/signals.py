"""Signals while a verb works: whoever is innermost is told, and what an outer block wanted holds again afterwards."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_wanted: ContextVar[Mapping[int, Callable[[int], object]]] = ContextVar("wanted", default={})  # noqa: B039 - nobody changes it


class Ended(Exception):
    """A signal has ended the block."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@contextlib.contextmanager
def heard(numbers: Sequence[int], call: Callable[[int], object]) -> Iterator[None]:
    """Call `call(number)` for signals, while the block runs. One that kpod was started to ignore stays so."""
    loop, outer = asyncio.get_running_loop(), _wanted.get()
    ours = [number for number in numbers if number in outer or signal.getsignal(number) != signal.SIG_IGN]
    token = _wanted.set({**outer, **dict.fromkeys(ours, call)})
    for number in ours:
        loop.add_signal_handler(number, call, number)
    try:
        yield
    finally:
        _wanted.reset(token)
        for number in ours:
            if number in outer:
                loop.add_signal_handler(number, outer[number], number)
            else:
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM and SIGHUP cancel the block, so that it cleans up. Raises Ended instead of the cancellation."""
    task = asyncio.current_task()
    assert task is not None
    seen: list[int] = []

    def end(number: int) -> None:
        if not seen:
            seen.append(number)
            task.cancel()

    with heard(ENDING, end):
        try:
            yield
        except asyncio.CancelledError:
            if not seen:
                raise
            task.uncancel()
            raise Ended(seen[0]) from None
