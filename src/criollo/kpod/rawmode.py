"""A terminal as a program at the other end wants it: every key as it is, none obeyed here; and as it was, afterwards.

Whatever ends the block, the terminal is put back: an error, an interrupt, a signal (`signals`). Only SIGKILL leaves it raw.
"""

import asyncio
import contextlib
import os
import signal
import termios
import tty
from collections.abc import AsyncGenerator, Iterator

from criollo.aio.streams import Size


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
