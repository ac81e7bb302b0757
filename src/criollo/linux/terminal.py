"""Pseudo terminals. Source: pty(7), ioctl_tty(2)."""

import array
import errno
import fcntl
import os
import socket
import struct
import termios
import tty
from typing import Final

MAX_SIZE: Final = 0xFFFF  # struct winsize has 16 bits for each
_TIOCGPTN: Final = 0x80045430  # asm-generic/ioctls.h
_MOST_FDS: Final = 4 * 4  # bytes; what is beyond the kernel closes
_NAME_BYTES: Final = 4096  # runtimes send the terminal's name along


def open_relay() -> tuple[int, int]:
    """A new terminal for a runtime that relays: its master, and its slave for a child. Both close-on-exec.

    What is typed passes as it is; newlines of the output become carriage return and newline.

    Raises:
        OSError: no terminal is left (kernel.pty.max).
    """
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        modes = termios.tcgetattr(slave)
        # runc has newlines translated here instead of inside, and sets OPOST late, when the first have come already.
        modes[tty.OFLAG] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, modes)
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return master, slave


def receive(connection: socket.socket) -> int:
    """The terminal's master that a runtime sends over its console socket; close-on-exec. The socket has something to read.

    Raises:
        OSError: anything else came, or nothing.
    """
    fds = array.array("i")
    # Not socket.recv_fds: in Python 3.11 it forgets its flags.
    for level, kind, content in connection.recvmsg(_NAME_BYTES, socket.CMSG_LEN(_MOST_FDS), socket.MSG_CMSG_CLOEXEC)[1]:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    try:
        if len(fds) != 1:
            raise OSError(errno.EPROTO, f"{len(fds)} descriptors instead of one")
        fcntl.ioctl(fds[0], _TIOCGPTN, struct.pack("I", 0))  # only a master has a number to tell
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return fds[0]


def set_size(fd: int, *, rows: int, columns: int) -> None:
    """Set the size of a terminal; numbers beyond its range are held to it. Raises OSError."""
    size = struct.pack("HHHH", _held(rows), _held(columns), 0, 0)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, size)


def _held(value: int) -> int:
    return min(max(value, 0), MAX_SIZE)
