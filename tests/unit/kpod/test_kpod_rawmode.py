import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Iterator

import pytest

from criollo.aio.streams import Size
from criollo.kpod.rawmode import raw, size, sizes


@pytest.fixture
def terminal() -> Iterator[int]:
    master, slave = pty.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def resize(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_terminal_is_raw_in_the_block_and_as_before_after_it(terminal: int) -> None:
    before = termios.tcgetattr(terminal)
    with contextlib.suppress(RuntimeError), raw(terminal):
        assert not termios.tcgetattr(terminal)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        raise RuntimeError
    assert termios.tcgetattr(terminal) == before


def test_sizes_are_told_at_first_and_when_they_change(terminal: int) -> None:
    async def main() -> list[Size]:
        found = []
        async for each in sizes(terminal):
            found.append(each)
            if len(found) == 2:
                return found
            resize(terminal, 50, 132)
            os.kill(os.getpid(), signal.SIGWINCH)
        return found

    resize(terminal, 24, 80)
    assert asyncio.run(main()) == [Size(24, 80), Size(50, 132)]


def test_what_has_no_size_says_none(terminal: int, tmp_path: os.PathLike[str]) -> None:
    resize(terminal, 0, 0)
    assert size(terminal) is None
    fd = os.open(tmp_path, os.O_RDONLY)
    assert size(fd) is None
    os.close(fd)
