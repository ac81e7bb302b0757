"""One SPDY stream by itself: what it keeps, and what it tells whom."""

import asyncio

import pytest

from criollo.streaming.spdy_stream import SpdyStream
from criollo.wire.spdy_frames import Reset


class Connection:
    """Takes what a stream says; has room for `rooms` in turn."""

    def __init__(self, *rooms: int) -> None:
        self.rooms = list(rooms)
        self.said: list[object] = []
        self.used_bytes = 0

    def room(self, stream: SpdyStream) -> int:
        return self.rooms.pop(0) if self.rooms else 1 << 20

    def send(self, stream: SpdyStream, payload: bytes | memoryview) -> None:
        self.said.append(bytes(payload))

    async def wait_turn(self, stream: SpdyStream) -> None:
        self.said.append("waited")

    def next_turn(self) -> None:
        self.said.append("next")

    def used_up(self, stream: SpdyStream, size_bytes: int) -> None:
        self.used_bytes += size_bytes

    def reply(self, stream: SpdyStream) -> None:
        self.said.append("reply")

    def finish(self, stream: SpdyStream) -> None:
        self.said.append("finish")

    def reset(self, stream: SpdyStream, status: Reset) -> None:
        self.said.append(status)


def test_write_goes_out_in_pieces_as_there_is_room() -> None:
    connection = Connection(2, 0, 3)
    asyncio.run(SpdyStream(connection, 1, {}).write(b"abcdefgh"))
    assert connection.said == [b"ab", "waited", b"cde", b"fgh", "next"]


def test_big_chunks_are_passed_on_as_they_came() -> None:
    stream, chunk = SpdyStream(Connection(), 1, {}), bytes(1 << 16)
    stream.received(chunk, is_last=False)
    assert asyncio.run(stream.read()) is chunk


def test_single_bytes_are_collected() -> None:
    connection = Connection()
    stream = SpdyStream(connection, 1, {})
    for n in range(200_000):
        stream.received(b"%d" % (n % 10), is_last=False)
    assert len(stream._chunks) < 10
    assert stream.unread_bytes == 200_000

    async def everything() -> bytes:
        stream.received(b"", is_last=True)
        octets = b""
        while part := await stream.read():
            octets += part
        return octets

    assert asyncio.run(everything()) == b"0123456789" * 20_000
    assert connection.used_bytes == 200_000


def test_stream_that_was_lost_gives_what_came_and_then_the_error() -> None:
    async def test() -> None:
        stream = SpdyStream(Connection(), 1, {})
        stream.received(b"abc", is_last=False)
        stream.lose("gone")
        assert await stream.read() == b"abc"
        with pytest.raises(ConnectionResetError, match="gone"):
            await stream.read()
        with pytest.raises(ConnectionResetError, match="gone"):
            await stream.write(b"x")

    asyncio.run(test())


@pytest.mark.parametrize("is_finished", [True, False])
def test_reset_drops_what_had_not_come_whole(is_finished: bool) -> None:
    connection = Connection()
    stream = SpdyStream(connection, 1, {})
    stream.received(b"abc", is_last=is_finished)
    stream.end("reset")
    assert stream.unread_bytes == (3 if is_finished else 0)
    assert connection.used_bytes == (0 if is_finished else 3)


def test_ignoring_gives_back_what_came() -> None:
    connection = Connection()
    stream = SpdyStream(connection, 1, {})
    stream.received(b"abc", is_last=False)
    stream.drop()
    assert (stream.unread_bytes, connection.used_bytes) == (0, 3)


def test_close_is_said_once_and_ends_writing() -> None:
    async def test() -> None:
        connection = Connection()
        stream = SpdyStream(connection, 1, {})
        await stream.close()
        await stream.close()
        assert connection.said == ["finish"]
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")

    asyncio.run(test())


def test_reset_and_refuse_have_their_status() -> None:
    async def test() -> None:
        connection = Connection()
        stream = SpdyStream(connection, 1, {})
        await stream.reply()
        await stream.refuse()
        await stream.reset()
        assert connection.said == ["reply", Reset.REFUSED_STREAM, Reset.CANCEL]

    asyncio.run(test())
