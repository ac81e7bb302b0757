"""Standard streams of a process of its own: what is exact, and what is left as it was."""

import os
import pty
import socket
import subprocess
import sys
import threading
from pathlib import Path

CAT = """
import asyncio
from criollo.aio.streams import copy
from criollo.kpod.ends import standard_input, standard_output
async def main():
    async with standard_input() as reader, standard_output() as writer:
        await copy(reader, writer)
asyncio.run(main())
"""


def cat(stdin: int, stdout: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", CAT], stdin=stdin, stdout=stdout)


def test_pipes_pass_and_stay_blocking() -> None:
    content = os.urandom(3_000_000)
    in_read, in_write = os.pipe()
    with cat(in_read, subprocess.PIPE) as process:
        feeder = threading.Thread(target=lambda: (write_all(in_write, content), os.close(in_write)))
        feeder.start()
        assert process.stdout is not None
        assert process.stdout.read() == content
        feeder.join()
    assert os.get_blocking(in_read)
    os.close(in_read)


def write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def test_files_keep_their_position_and_are_added_to(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"skipped rest")
    (tmp_path / "out").write_bytes(b"before ")
    source, sink = os.open(tmp_path / "in", os.O_RDONLY), os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    os.lseek(source, 8, os.SEEK_SET)
    assert cat(source, sink).wait(60) == 0
    assert (tmp_path / "out").read_bytes() == b"before rest"
    os.close(source)
    os.close(sink)


def test_sockets_pass_and_are_blocking_again() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, cat(theirs.fileno(), theirs.fileno()) as process:
        ours.sendall(b"x")
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(10) == b"x"
        assert process.wait(60) == 0
        assert os.get_blocking(theirs.fileno())


def test_a_terminal_passes_and_stays_blocking() -> None:
    master, slave = pty.openpty()
    with cat(slave, subprocess.PIPE) as process:
        os.write(master, b"line\n\x04")
        assert process.stdout is not None
        assert process.stdout.read() == b"line\n"
    assert os.get_blocking(slave)
    os.close(master)
    os.close(slave)


def test_no_standard_input_is_an_empty_one() -> None:
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", CAT]
    assert subprocess.run(closed, stdout=subprocess.PIPE, check=True, timeout=60).stdout == b""
