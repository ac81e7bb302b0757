"""A pipe of bytes in the binary messages of a WebSocket, as an asyncio transport: a SPDY connection runs inside one.

Bounds are the socket's: who pauses reading holds the connection, and when the socket has enough to send, writing is paused.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from criollo.streaming.frames import FrameConnection
from criollo.wire.websocket import WRONG_TYPE, Broken, Frames, Part


class Tunnel(asyncio.Transport):
    """Carries `protocol`, which may be a BufferedProtocol. `connection` can be waited for and closed in order."""

    def __init__(self, protocol: asyncio.BaseProtocol, *, is_client: bool = False) -> None:
        super().__init__()
        self._protocol = protocol
        self.connection = FrameConnection(Frames(is_client=is_client), self)
        self._is_reading, self._is_over = True, False

    def start(self, transport: asyncio.Transport, first: bytes = b"") -> None:
        """Take over a socket's transport after the handshake."""
        self.connection.start(transport)
        self._protocol.connection_made(self)
        if first:
            self.connection.data_received(first)

    # What the connection tells.

    def received(self, part: Part) -> None:
        if part.is_text:
            raise Broken(WRONG_TYPE, "a tunnel takes binary messages only")
        if not part.payload or self._is_over:
            return
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            _fill(self._protocol, part.payload)
        elif isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(part.payload)

    def ended(self, failure: str) -> None:
        if not self._is_over:
            self._is_over = True
            lost = ConnectionResetError(failure) if failure else None
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, lost)

    def writable(self, *, now: bool) -> None:
        if not self._is_over:
            (self._protocol.resume_writing if now else self._protocol.pause_writing)()

    # What the protocol asks.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self.connection.write(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that no more comes. A WebSocket's peer answers that by ending its direction too."""
        self.connection.start_closing()

    def pause_reading(self) -> None:
        self._is_reading = False
        self.connection.hold(self)

    def resume_reading(self) -> None:
        self._is_reading = True
        self.connection.let_go(self)

    def is_reading(self) -> bool:
        return self._is_reading and not self.is_closing()

    def close(self) -> None:
        self.connection.start_closing()

    def abort(self) -> None:
        self.connection.abort()

    def is_closing(self) -> bool:
        return self._is_over or self.connection.is_closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.connection.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.connection.transport.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self.connection.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.connection.transport.get_extra_info(name, default)


def _fill(protocol: asyncio.BufferedProtocol, payload: bytes) -> None:
    """Put bytes into the buffers that the protocol gives, as an event loop does."""
    left = memoryview(payload)
    while left:
        room = memoryview(protocol.get_buffer(len(left)))
        size = min(len(room), len(left))
        if not size:
            raise RuntimeError("get_buffer() gave an empty buffer")
        room[:size] = left[:size]
        protocol.buffer_updated(size)
        left = left[size:]
