"""Ends of pipes and terminals that wait for each other."""

import asyncio
import contextlib
import os
import pty
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.aio.streams import BoundedPipe, ByteBudget, FdReader, FdWriter, copy


class Sink:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.content = b""

    async def write(self, data: bytes) -> None:
        self.content += data

    async def close(self) -> None:
        pass


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def test_a_reader_waits_and_finds_the_end(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        reader = FdReader(pipe[0])
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(reader.read())
            await asyncio.sleep(0)
            assert not waiting.done()
            os.write(pipe[1], b"hello")
        assert waiting.result() == b"hello"
        os.close(pipe[1])
        assert await reader.read() == b""
        assert await reader.read() == b""
        reader.close()
        assert await reader.read() == b""

    asyncio.run(scenario())


def test_a_finished_reader_gives_what_is_there_and_no_more(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        reader = FdReader(pipe[0], chunk_bytes=4)
        os.write(pipe[1], b"123456")
        reader.finish()
        os.write(pipe[1], b"later")
        assert [await reader.read() for _ in range(4)] == [b"1234", b"56", b"", b""]
        reader.close()
        os.close(pipe[1])

    asyncio.run(scenario())


def test_finishing_wakes_who_waits(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        reader = FdReader(pipe[0])
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(reader.read())
            await asyncio.sleep(0)
            reader.finish()
        assert waiting.result() == b""
        reader.close()
        os.close(pipe[1])

    asyncio.run(scenario())


def test_a_finished_reader_waits_for_what_is_on_its_way_and_takes_no_more_of_it(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        reader = FdReader(pipe[0])
        os.write(pipe[1], b"there ")
        reader.finish(more_bytes=6, quiet_s=60)
        assert await reader.read() == b"there "
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(reader.read())
            await asyncio.sleep(0)
            os.write(pipe[1], b"later, and a stranger's")
        assert waiting.result() == b"later,"
        assert await reader.read() == b""
        reader.close()
        os.close(pipe[1])

    asyncio.run(scenario())


def test_a_finished_reader_ends_when_nothing_was_on_its_way(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        reader = FdReader(pipe[0])
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            waiting = group.create_task(reader.read())
            await asyncio.sleep(0)
            reader.finish(more_bytes=100, quiet_s=0.01)
        assert waiting.result() == b""
        reader.close()
        os.close(pipe[1])

    asyncio.run(scenario())


def test_a_terminal_ends_when_its_last_process_has_gone() -> None:
    async def scenario() -> None:
        master, slave = pty.openpty()
        reader = FdReader(master)
        os.write(slave, b"last words")
        os.close(slave)
        assert await reader.read() == b"last words"
        assert await reader.read() == b""
        reader.close()

    asyncio.run(scenario())


def test_a_writer_waits_for_room(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        reader, writer, sink = FdReader(pipe[0]), FdWriter(pipe[1]), Sink()
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, sink))
            await writer.write(b"x" * 1_000_000)
            await writer.close()
            await writer.close()
        assert sink.content == b"x" * 1_000_000
        with pytest.raises(BrokenPipeError):
            await writer.write(b"more")
        reader.close()

    asyncio.run(scenario())


def test_a_writer_without_a_reader_is_told(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        os.close(pipe[0])
        writer = FdWriter(pipe[1])
        with pytest.raises(BrokenPipeError):
            await writer.write(b"x")
        await writer.close()

    asyncio.run(scenario())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=5000), max_size=60), st.booleans())
def test_what_goes_in_comes_out(pieces: list[bytes], is_roomy: bool) -> None:
    async def scenario() -> bytes:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        reader, writer, sink = FdReader(read_end, is_roomy=is_roomy), FdWriter(write_end), Sink()
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, sink))
            for piece in pieces:
                await writer.write(piece)
                await asyncio.sleep(0)
            await writer.close()
        reader.close()
        return sink.content

    assert asyncio.run(scenario()) == b"".join(pieces)


def test_a_bounded_pipe_keeps_up_to_its_limit_and_counts_the_rest(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        bounded = BoundedPipe(pipe[0], 4)
        os.write(pipe[1], b"12")
        os.write(pipe[1], b"3456")
        bounded.close()
        bounded.close()
        assert (bounded.content(), bounded.dropped_bytes) == (b"1234", 2)

    asyncio.run(scenario())


def test_bounded_pipes_share_a_budget_and_give_it_back(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        other = os.pipe2(os.O_CLOEXEC)
        budget = ByteBudget(5)
        pipes = [BoundedPipe(fd, 100, budget=budget) for fd in (pipe[0], other[0])]
        os.write(pipe[1], b"123")
        os.write(other[1], b"456")
        for fd in (pipe[1], other[1]):
            os.close(fd)
        while budget.left_bytes:
            await asyncio.sleep(0)
        for bounded in pipes:
            bounded.close()
        assert b"".join(sorted(bounded.content() for bounded in pipes)) in {b"12345", b"12456"}
        assert sum(bounded.dropped_bytes for bounded in pipes) == 1
        assert budget.left_bytes == 5

    asyncio.run(scenario())


def test_closing_a_bounded_pipe_waits_for_nobody_who_goes_on_writing(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        bounded = BoundedPipe(pipe[0], 1 << 20)
        os.set_blocking(pipe[1], False)
        stop = threading.Event()

        def write_on() -> None:
            while not stop.is_set():
                with contextlib.suppress(BlockingIOError):
                    os.write(pipe[1], b"x" * 65536)

        writer = threading.Thread(target=write_on)
        writer.start()
        try:
            bounded.close()
        finally:
            stop.set()
            writer.join()

    asyncio.run(scenario())
