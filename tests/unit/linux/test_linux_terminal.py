"""Terminals: raw, sized, and taken from another process only when they are one."""

import fcntl
import os
import socket
import struct
import termios

import pytest
from support import leaks

from criollo.linux import terminal


def size_of(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def sent(*fds: int) -> int:
    """What is received when these are sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(theirs, [b"/dev/pts/0"], list(fds))
        return terminal.receive(ours)


def test_keys_pass_as_they_are_and_newlines_are_translated() -> None:
    master, slave = terminal.open_relay()
    os.write(slave, b"a\nb")
    assert os.read(master, 100) == b"a\r\nb"
    os.write(master, b"\x03\r")
    assert os.read(slave, 100) == b"\x03\r"
    assert not os.get_inheritable(master)
    assert not os.get_inheritable(slave)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(
    ("asked", "held"), [((24, 80), (24, 80)), ((0, 0), (0, 0)), ((-1, 1 << 40), (0, 65535)), ((65535, 65536), (65535, 65535))]
)
def test_a_size_is_held_to_what_a_terminal_can_have(asked: tuple[int, int], held: tuple[int, int]) -> None:
    master, slave = terminal.open_relay()
    terminal.set_size(master, rows=asked[0], columns=asked[1])
    assert size_of(slave) == held
    os.close(master)
    os.close(slave)


def test_a_master_is_taken() -> None:
    master, slave = terminal.open_relay()
    taken = sent(master)
    os.write(slave, b"x")
    assert os.read(taken, 10) == b"x"
    assert not os.get_inheritable(taken)
    for fd in (master, slave, taken):
        os.close(fd)


def test_anything_else_is_refused_and_closed() -> None:
    master, slave = terminal.open_relay()
    read_end, write_end = os.pipe()
    before = leaks.descriptors()
    for fds in ((), (slave,), (read_end,), (master, master)):
        with pytest.raises(OSError, match=r"."):
            sent(*fds)
    assert leaks.new_descriptors(before) == []
    for fd in (master, slave, read_end, write_end):
        os.close(fd)
