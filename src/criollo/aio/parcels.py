"""Parcels (`wire.parcels`) over a connection: what the daemon and kpod hand each other when files are copied."""

import asyncio
from typing import Final, NamedTuple

from criollo.wire.parcels import MAX_BYTES, Parcel, ParcelKind, Unpacker, head

READ_BYTES: Final = 256 << 10


class ParcelLine:
    """Parcels both ways. `close` it on every path."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._unpacker = Unpacker()
        self._waiting: list[Parcel] = []

    async def send(self, kind: ParcelKind, content: bytes | bytearray) -> None:
        """Send a parcel, or as many as it takes for content that is longer. Raises ConnectionError: the peer is gone."""
        view = memoryview(content)
        while True:
            piece, view = view[:MAX_BYTES], view[MAX_BYTES:]
            self._writer.write(head(kind, len(piece)))
            self._writer.write(bytes(piece))
            await self._writer.drain()
            if not view:
                return

    async def receive(self) -> Parcel:
        """The next parcel.

        Raises:
            ConnectionError: the connection ended before the last one.
            Damaged: what came is none.
        """
        while not self._waiting:
            chunk = await self._reader.read(READ_BYTES)
            if not chunk:
                raise ConnectionResetError("the connection ended in the middle")
            self._waiting = list(self._unpacker.feed(chunk))
        return self._waiting.pop(0)

    async def gone(self) -> None:
        """Return when the peer has closed; what it still sends is dropped."""
        while await self._reader.read(READ_BYTES):
            pass

    def close(self) -> None:
        """Send what was written, then end."""
        self._writer.close()


class Switched(NamedTuple):
    """A connection after its upgrade, as streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


def streams_on(transport: asyncio.Transport, first: bytes = b"") -> Switched:
    """Streams on a transport that somebody else has read so far, up to `first`, and has paused."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if first:
        protocol.data_received(first)
    if not transport.is_closing():
        transport.resume_reading()
    return Switched(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
