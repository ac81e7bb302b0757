"""One stream of a SPDY connection: a Reader and a Writer, for one user each."""

import asyncio
from collections import deque
from typing import Final, Protocol

from criollo.wire.spdy_frames import Reset

_SMALL_BYTES: Final = 4 << 10  # pieces below this are collected: a peer that sends single bytes shall not cost objects
_LUMP_BYTES: Final = 64 << 10


class Connection(Protocol):
    """What a stream needs of the connection that it is on."""

    def room(self, stream: "SpdyStream") -> int:
        """How many bytes of it may be sent now."""
        ...

    def send(self, stream: "SpdyStream", payload: bytes | memoryview) -> None:
        """Send one frame, no bigger than there is room. Raises ConnectionResetError."""
        ...

    async def wait_turn(self, stream: "SpdyStream") -> None:
        """Returns when there may be room."""
        ...

    def next_turn(self) -> None:
        """Another stream may send."""
        ...

    def used_up(self, stream: "SpdyStream", size_bytes: int) -> None:
        """Received bytes take no room here any more."""
        ...

    def reply(self, stream: "SpdyStream") -> None:
        """Tell the peer that its stream is taken."""
        ...

    def finish(self, stream: "SpdyStream") -> None:
        """Tell the peer that nothing more is sent."""
        ...

    def reset(self, stream: "SpdyStream", status: Reset) -> None:
        """End it both ways."""
        ...


class SpdyStream:
    """`headers` are the opener's, names in lower case. `is_dropped`: what comes in is dropped unread."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_failure",
        "_is_in_over",
        "_is_out_over",
        "_is_taken",
        "_reader",
        "_taken",
        "_writer",
        "headers",
        "is_dropped",
        "stream_id",
        "unread_bytes",
    )

    def __init__(self, connection: Connection, stream_id: int, headers: dict[str, str]) -> None:
        self.stream_id, self.headers = stream_id, headers
        self.unread_bytes, self.is_dropped = 0, False
        self._connection = connection
        self._chunks: deque[bytes | bytearray] = deque()
        self._failure = ""
        self._is_in_over = self._is_out_over = self._is_taken = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._taken: asyncio.Future[None] | None = None

    @property
    def is_lost(self) -> bool:
        """It was reset, or its connection has ended."""
        return bool(self._failure)

    # What its user asks.

    async def read(self) -> bytes:
        """The next bytes; empty once the peer has sent its last. Raises ConnectionResetError: no end was sent."""
        while not self._chunks:
            if self._is_in_over:
                return b""
            if self._failure:
                raise ConnectionResetError(self._failure)
            assert self._reader is None, "a stream has one reader"
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        chunk = self._chunks.popleft()
        self.unread_bytes -= len(chunk)
        self._connection.used_up(self, len(chunk))
        return chunk if isinstance(chunk, bytes) else bytes(chunk)

    async def write(self, data: bytes) -> None:
        """Returns when all is on its way. Raises ConnectionResetError."""
        connection, left = self._connection, memoryview(data)
        while left:
            self._check_writable()
            room = connection.room(self)
            if not room:
                await connection.wait_turn(self)
            else:
                connection.send(self, left[:room])
                left = left[room:]
        self._check_writable()
        connection.next_turn()

    async def close(self) -> None:
        """Say that no more comes; the other direction goes on. May be repeated."""
        if not self._is_out_over:
            self._is_out_over = True
            self._connection.finish(self)

    async def reset(self) -> None:
        """Give up both directions; what was received and not read is dropped. Due for a stream that is not read to its end."""
        self._connection.reset(self, Reset.CANCEL)

    async def refuse(self) -> None:
        """Turn down a stream that the peer opened."""
        self._connection.reset(self, Reset.REFUSED_STREAM)

    async def reply(self) -> None:
        """Take a stream that the peer opened; before that it sends nothing, and gets nothing."""
        self._connection.reply(self)

    def drop(self) -> None:
        """Whatever the peer sends on it is not wanted."""
        self.is_dropped = True
        self._drop_unread()

    # What the connection tells.

    def received(self, octets: bytes, *, is_last: bool) -> None:
        """Some payload, and whether it is the last."""
        if octets:
            self.unread_bytes += len(octets)
            self._keep(octets)
        self._is_in_over |= is_last
        _wake(self._reader)

    def let_write(self) -> None:
        """There may be room."""
        _wake(self._writer)

    def was_taken(self) -> None:
        """The peer has replied."""
        self._is_taken = True
        _wake(self._taken)

    def end(self, failure: str) -> None:
        """It was reset: what the peer had not finished is not worth reading."""
        if not self._is_in_over:
            self._drop_unread()
        self.lose(failure)

    def lose(self, failure: str) -> None:
        """Nothing more comes and nobody takes anything; what came can still be read."""
        self._failure = self._failure or failure
        for waiting in (self._reader, self._writer, self._taken):
            _wake(waiting)

    async def wait_taken(self) -> None:
        """Returns when the peer has replied. Raises ConnectionRefusedError."""
        self._taken = asyncio.get_running_loop().create_future()
        await self._taken
        if not self._is_taken:
            raise ConnectionRefusedError(self._failure)

    async def wait_room(self) -> None:
        """Returns after `let_write`, or when the stream ends."""
        assert self._writer is None, "a stream has one writer"
        self._writer = asyncio.get_running_loop().create_future()
        try:
            await self._writer
        finally:
            self._writer = None

    # Inside.

    def _check_writable(self) -> None:
        if self._failure:
            raise ConnectionResetError(self._failure)
        if self._is_out_over:
            raise BrokenPipeError("this direction of the stream was closed")

    def _keep(self, octets: bytes) -> None:
        if len(octets) >= _SMALL_BYTES or not self._chunks:
            self._chunks.append(octets)
            return
        last = self._chunks[-1]
        if isinstance(last, bytearray) and len(last) < _LUMP_BYTES:
            last += octets
        else:
            self._chunks.append(bytearray(octets))

    def _drop_unread(self) -> None:
        dropped, self.unread_bytes = self.unread_bytes, 0
        self._chunks.clear()
        if dropped:
            self._connection.used_up(self, dropped)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
