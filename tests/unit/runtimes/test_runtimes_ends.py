"""Terminals that a runtime hands over, in the steps in which that happens."""

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.waiting import run, until

from criollo.aio.streams import Streams
from criollo.errors import HostFailed
from criollo.runtimes.ends import HandedOver


@contextlib.asynccontextmanager
async def opened(bundle: Path) -> AsyncIterator[HandedOver]:
    ends = HandedOver(Streams(), bundle)
    ends.open()
    try:
        yield ends
    finally:
        await ends.close()


def connected(ends: HandedOver) -> socket.socket:
    """A runtime that has found the console socket."""
    path = ends.options[1]
    runtime = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    runtime.connect(path)
    return runtime


def send_terminal(runtime: socket.socket) -> int:
    """Send a terminal's master, as runtimes do; its slave."""
    master, slave = os.openpty()
    runtime.sendmsg([b"/dev/pts/0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    os.close(master)
    return slave


def test_what_a_runtime_handed_over_before_it_ended_is_there_without_a_wait(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as ends:
            with connected(ends) as runtime:
                slave = send_terminal(runtime)
            try:
                ends.take_what_is_there()
                os.write(slave, b"its last words")
                assert await ends.outputs[0].read() == b"its last words"
            finally:
                os.close(slave)

    run(test())


def test_a_wait_that_is_cut_loses_nothing_that_came(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as ends:
            waiting = asyncio.get_running_loop().create_task(ends.complete())
            with connected(ends) as runtime:
                await until(lambda: ends._connection is not None)
                slave = send_terminal(runtime)
                waiting.cancel()
                await asyncio.wait([waiting])
            os.close(slave)
            ends.take_what_is_there()
            assert len(ends.outputs) == 1

    run(test())


def test_a_runtime_that_hands_over_nothing_leaves_no_terminal(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as ends:
            ends.take_what_is_there()
            assert ends.outputs == []
            connected(ends).close()
            with pytest.raises(HostFailed, match="take the terminal of an exec from the runtime: 0 descriptors"):
                ends.take_what_is_there()
        assert os.listdir(tmp_path) == []

    run(test())
