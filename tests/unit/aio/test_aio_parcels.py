import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from criollo.aio.parcels import ParcelLine, streams_on
from criollo.aio.together import together
from criollo.errors import Damaged
from criollo.wire.parcels import MAX_BYTES, Parcel, ParcelKind, encode

Side = Callable[[ParcelLine], Awaitable[object]]


def between(one: Side, other: Side) -> None:
    """Both sides of a connection, at once."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        lines = [ParcelLine(*await asyncio.open_unix_connection(sock=each)) for each in (ours, theirs)]

        async def side(work: Side, line: ParcelLine) -> None:
            try:
                await work(line)
            finally:
                line.close()

        async with asyncio.timeout(60):
            await together([side(one, lines[0]), side(other, lines[1])])

    asyncio.run(main())


def test_what_is_longer_than_a_parcel_comes_in_several() -> None:
    content = bytes(range(256)) * 10_000
    found: list[Parcel] = []

    async def send(line: ParcelLine) -> None:
        await line.send(ParcelKind.DATA, content)
        await line.send(ParcelKind.END, b"")

    async def receive(line: ParcelLine) -> None:
        while not found or found[-1].kind is ParcelKind.DATA:
            found.append(await line.receive())

    between(send, receive)
    assert b"".join(each.content for each in found) == content
    assert [len(each.content) for each in found] == [MAX_BYTES, MAX_BYTES, len(content) - 2 * MAX_BYTES, 0]


def test_a_connection_that_ends_early_was_cut() -> None:
    async def send(line: ParcelLine) -> None:
        await line.send(ParcelKind.DATA, b"x")

    async def receive(line: ParcelLine) -> None:
        assert await line.receive() == Parcel(ParcelKind.DATA, b"x")
        with pytest.raises(ConnectionResetError, match="in the middle"):
            await line.receive()

    between(send, receive)


def test_gone_drops_what_comes_and_sees_the_end() -> None:
    async def send(line: ParcelLine) -> None:
        await line.send(ParcelKind.DATA, bytes(3 << 20))

    async def wait(line: ParcelLine) -> None:
        await line.gone()

    between(send, wait)


def test_a_transport_that_somebody_else_has_read_goes_on() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=ours)
        transport.pause_reading()
        wire = encode(ParcelKind.DATA, b"hello")
        theirs.sendall(wire[3:] + b"\x09")
        line = ParcelLine(*streams_on(transport, wire[:3]))
        theirs.shutdown(socket.SHUT_WR)
        assert await line.receive() == Parcel(ParcelKind.DATA, b"hello")
        with pytest.raises(ConnectionResetError):
            await line.receive()
        line.close()
        theirs.close()

    asyncio.run(main())


def test_nonsense_is_damaged() -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(Damaged):
            await ParcelLine(reader, None).receive()  # type: ignore[arg-type]  # nothing is sent

    asyncio.run(main())
