"""Blobs through a pipe: the reader knows whether they were right before it finishes; who fails first is to blame."""

import asyncio
import os

import pytest
from support import leaks

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Exhausted
from criollo.images.copyflow import Pipe, Pour, through

CONTENT = os.urandom(1 << 20)


def poured(content: bytes, error: Exception | None = None) -> Pour:
    async def pour(sink_fd: int) -> None:
        def write() -> None:
            view = memoryview(content)
            while view:
                view = view[os.write(sink_fd, view) :]

        await threads.transfers(write)
        if error is not None:
            raise error

    return pour


def read_all(fd: int) -> bytes:
    found = bytearray()
    while piece := os.read(fd, 1 << 16):
        found += piece
    return bytes(found)


def taken(pour: Pour) -> tuple[bytes, bool]:
    found: list[tuple[bytes, bool]] = []

    async def take(pipe: Pipe) -> None:
        content = await threads.transfers(read_all, pipe.source_fd)
        found.append((content, pipe.was_right))

    async def main() -> None:
        try:
            await through(pour, take)
        finally:
            threads.close()

    asyncio.run(main())
    return found[0]


def test_more_than_a_pipe_holds_goes_through() -> None:
    assert taken(poured(CONTENT)) == (CONTENT, True)


def test_the_reader_is_never_told_that_a_failed_pour_was_right() -> None:
    told: list[bool] = []

    async def take(pipe: Pipe) -> None:
        await threads.transfers(read_all, pipe.source_fd)
        told.append(pipe.was_right)

    with pytest.raises(Damaged, match="wrong"):
        asyncio.run(through(poured(b"x", Damaged("wrong")), take))
    assert True not in told
    threads.close()


def test_a_reader_that_fails_ends_the_pour() -> None:
    async def take(pipe: Pipe) -> None:
        raise Exhausted("the disk is full")

    with pytest.raises(CriolloError, match="full"):
        asyncio.run(through(poured(CONTENT), take))
    threads.close()


def test_no_descriptor_stays_open() -> None:
    before = leaks.descriptors()
    taken(poured(b"x"))
    assert leaks.new_descriptors(before) == []
