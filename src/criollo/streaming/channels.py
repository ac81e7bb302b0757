"""Channels over one WebSocket as Readers and Writers, for either side.

What the peer sends on a channel waits here until it is read, at most `BUFFER_BYTES` and what one read of the socket brought.
A full channel holds the whole connection: a WebSocket has no flow control of a channel's own.
"""

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Final

from criollo.aio.streams import CHUNK_BYTES, Size
from criollo.streaming.frames import FrameConnection
from criollo.telemetry.log import get_logger
from criollo.wire.channels import RESIZE, ChannelEnded, Chunk, Demux, Resizes, Subprotocol, message
from criollo.wire.websocket import Frames, Part

log = get_logger(__name__)

BUFFER_BYTES: Final = 1 << 20
_CHUNK_COST: Final = 64  # of memory besides its bytes: a peer may send them one by one


class Channels:
    """The `count` channels of a connection, of which those in `incoming` bring something. `sizes` reads channel 4."""

    def __init__(self, kind: Subprotocol, *, count: int, incoming: Collection[int]) -> None:
        self.kind = kind
        self.connection = FrameConnection(Frames(), self)
        self.sizes = Sizes()
        self._demux = Demux(kind, count, incoming)
        self._resizes = Resizes()
        self._has_sizes = RESIZE in incoming and count == RESIZE + 1
        self._readers = {n: ChannelReader(self.connection) for n in incoming if not (self._has_sizes and n == RESIZE)}

    def reader(self, channel: int) -> "ChannelReader":
        """Of an incoming channel."""
        return self._readers[channel]

    def writer(self, channel: int) -> "ChannelWriter":
        """Of any channel; its `close` is told to the peer where the subprotocol has a word for it."""
        return ChannelWriter(self, channel)

    # What the connection tells.

    def received(self, part: Part) -> None:
        for event in self._demux.receive(part.payload, ends=part.ends):
            if isinstance(event, ChannelEnded):
                if event.channel in self._readers:
                    self._readers[event.channel].end()
            elif self._has_sizes and event.channel == RESIZE:
                self._resize(event)
            else:
                self._readers[event.channel].feed(event.payload)

    def ended(self, failure: str) -> None:
        self.sizes.end()
        for reader in self._readers.values():
            reader.end(failure)

    def writable(self, *, now: bool) -> None:
        """Writers wait in the connection."""

    def _resize(self, chunk: Chunk) -> None:
        try:
            size = self._resizes.receive(chunk)
        except ValueError as error:
            log.debug("malformed size of a terminal passed over", cause=error)
        else:
            if size is not None:
                self.sizes.put(Size(*size))


class ChannelReader:
    """What the peer sends on one channel."""

    def __init__(self, connection: FrameConnection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._has_ended, self._failure = False, ""
        self._wake = asyncio.Event()

    async def read(self) -> bytes:
        while not self._chunks:
            if self._failure:
                raise ConnectionResetError(self._failure)
            if self._has_ended:
                return b""
            self._wake.clear()
            await self._wake.wait()
        taken = [self._chunks.popleft()]
        size = len(taken[0])
        while self._chunks and size + len(self._chunks[0]) <= CHUNK_BYTES:
            taken.append(self._chunks.popleft())
            size += len(taken[-1])
        self._waiting_bytes -= size + _CHUNK_COST * len(taken)
        if self._waiting_bytes <= BUFFER_BYTES // 2:
            self._connection.let_go(self)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def feed(self, payload: bytes) -> None:
        """Bytes from the peer; dropped after the end."""
        if payload and not self._has_ended:
            self._chunks.append(payload)
            self._waiting_bytes += len(payload) + _CHUNK_COST
            self._wake.set()
            if self._waiting_bytes >= BUFFER_BYTES:
                self._connection.hold(self)

    def end(self, failure: str = "") -> None:
        """No more comes; what waits can still be read. The first end counts."""
        if not self._has_ended:
            self._has_ended, self._failure = True, failure
            self._wake.set()

    def drop(self) -> None:
        """Nobody reads this any more: pass over what waits and what comes."""
        self.end()
        self._chunks.clear()
        self._waiting_bytes = 0
        self._connection.let_go(self)


class ChannelWriter:
    """What we send on one channel."""

    def __init__(self, channels: Channels, channel: int) -> None:
        self._channels, self._channel = channels, channel
        self._is_closed = False

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK_BYTES):
            await self._send(data[start : start + CHUNK_BYTES] if len(data) > CHUNK_BYTES else data)

    async def announce(self) -> None:
        """Send a message without bytes: the channel is there."""
        await self._send(b"")

    async def close(self) -> None:
        self._is_closed = True

    async def _send(self, data: bytes) -> None:
        if self._is_closed:
            raise BrokenPipeError("the channel is closed")
        kind = self._channels.kind
        prefix, payload = message(kind, self._channel, data)
        await self._channels.connection.send(payload, prefix=prefix, is_text=kind.is_base64)


class Sizes:
    """Sizes of the peer's terminal as they come; who is late gets only the last one."""

    def __init__(self) -> None:
        self._last: Size | None = None
        self._has_ended = False
        self._wake = asyncio.Event()

    def put(self, size: Size) -> None:
        self._last = size
        self._wake.set()

    def end(self) -> None:
        self._has_ended = True
        self._wake.set()

    def __aiter__(self) -> "Sizes":
        return self

    async def __anext__(self) -> Size:
        while self._last is None:
            if self._has_ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        size, self._last = self._last, None
        return size
