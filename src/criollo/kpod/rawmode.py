"""A terminal as a program at the other end wants it: every key as it is, none obeyed here; and as it was, afterwards.

Whatever ends the block, the terminal is put back: an error, an interrupt, SIGTERM, SIGHUP. Only SIGKILL leaves it raw.
"""

import asyncio
import contextlib
import os
import signal
import termios
import tty
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from criollo.aio.streams import Size

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Put a terminal into raw mode for the block."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(fd, termios.TCSANOW, before)


class Ended(Exception):
    """A signal has ended the block."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM and SIGHUP cancel the block, so that it cleans up. Raises Ended instead of the cancellation."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    seen: list[int] = []

    def end(number: int) -> None:
        if not seen:
            seen.append(number)
            task.cancel()

    for number in _ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if not seen:
            raise
        task.uncancel()
        raise Ended(seen[0]) from None
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)


async def sizes(fd: int) -> AsyncGenerator[Size, None]:
    """The size of a terminal, and again whenever it has changed."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        last = None
        while True:
            changed.clear()
            now = size(fd)
            if now != last and now is not None:
                last = now
                yield now
            await changed.wait()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def size(fd: int) -> Size | None:
    """The size of a terminal; None when it says none."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return None
    return Size(found.lines, found.columns) if found.lines and found.columns else None
