"""A WebSocket on a transport: messages to a receiver, messages out, and an orderly end. Either side of it.

What comes in is handed on at once, in parts; a receiver that has enough *holds* the connection: it is not read until all who
hold it let go. What goes out waits while the transport has more than a chunk to send. So both directions are bounded. A flood
of tiny frames is taken a millisecond's work at a time, and nothing more is read until it is done: others get their turns.

Control frames are answered here. A peer that pings and does not read gets one pong for many pings (RFC 6455, 5.5.3). Where
nothing came for a while we ping: a held connection is not read, and only a write finds out that the peer is gone.

The end: our close frame, after everything else has been sent; then what still comes is read and dropped, because closing a
socket with unread bytes would reset it and take our last output along; then the peer's close frame, or a limit.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from criollo.aio.streams import CHUNK_BYTES
from criollo.telemetry.log import get_logger
from criollo.wire.websocket import GOING_AWAY, NO_CODE, NORMAL, Broken, Closed, Event, Frames, Part, Ping

log = get_logger(__name__)

_QUIET_S: Final = 30.0  # without a byte from the peer, before we ping
_STALL_S: Final = 30.0  # without a byte taken by the peer, at the end
_FAREWELL_S: Final = 5.0  # for the peer's close frame
_STEPS: Final = 100  # frames taken in one go
_CLEAN: Final = (NORMAL, GOING_AWAY, NO_CODE)


class Receiver(Protocol):
    """Who gets a connection's messages. Called on the loop; must not wait."""

    def received(self, part: Part) -> None:
        """Some of a message. Raises Broken: the connection is closed with its code."""
        ...

    def ended(self, failure: str) -> None:
        """Nothing more comes, and nobody reads what we send; called once. Empty: the peer closed in order."""
        ...

    def writable(self, *, now: bool) -> None:
        """The transport has more than enough to send, or room again."""
        ...


class FrameConnection(asyncio.Protocol):
    """Frames on a transport, until `ended`. `over` is set once the transport is closed too."""

    def __init__(self, frames: Frames, receiver: Receiver) -> None:
        self._frames, self._receiver = frames, receiver
        self._transport: asyncio.Transport | None = None
        self._holders: set[object] = set()
        self._behind: deque[Iterator[Event]] = deque()  # what was read and not taken yet
        self._room = asyncio.Event()
        self._room.set()
        self._pong: bytes | None = None
        self._has_heard = True
        self._has_sent_close = False
        self._listener: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()
        self.over = asyncio.Event()
        self.failure = ""

    def start(self, transport: asyncio.Transport, first: bytes = b"") -> None:
        """Take over a transport after the handshake; `first` are bytes that were read with it."""
        self._transport = transport
        transport.set_write_buffer_limits(high=CHUNK_BYTES, low=CHUNK_BYTES // 4)
        transport.set_protocol(self)
        if transport.is_closing():
            self.connection_lost(None)
            return
        self._listen()
        if first:
            self.data_received(first)
        self._read_or_not()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None, "not started"
        return self._transport

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._has_sent_close or self.ended.is_set()

    # What others ask.

    def write(self, payload: bytes, *, prefix: bytes = b"", is_text: bool = False) -> None:
        """Send a message, whether there is room or not. Dropped after the end."""
        if not self.is_closing:
            self.transport.write(self._frames.message(payload, prefix=prefix, is_text=is_text))

    async def send(self, payload: bytes, *, prefix: bytes = b"", is_text: bool = False) -> None:
        """Send a message; returns when there is room for more. Raises ConnectionError."""
        self._check()
        self.write(payload, prefix=prefix, is_text=is_text)
        if not self._room.is_set():
            await self._room.wait()
            self._check()

    def hold(self, holder: object) -> None:
        """Do not read until this holder lets go; to no effect once we are closing."""
        if not self._has_sent_close:
            self._holders.add(holder)
            self._read_or_not()

    def let_go(self, holder: object) -> None:
        """The counterpart of `hold`; may be repeated."""
        self._holders.discard(holder)
        self._read_or_not()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Send what waits, say goodbye, wait for the peer's. Returns when the transport is closed; may be repeated."""
        try:
            if not self.ended.is_set():
                self._say_goodbye(code, reason)
                await self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self.over.wait()
        finally:
            if self.transport.get_write_buffer_size():
                self.transport.abort()
            self.transport.close()
        await self.over.wait()

    def start_closing(self, code: int = NORMAL, reason: str = "") -> None:
        """`close` for those who cannot wait: the whole end has one limit."""
        if not self.over.is_set() and not self._has_sent_close:
            self._say_goodbye(code, reason)
            limit_s = _STALL_S if self.transport.get_write_buffer_size() else _FAREWELL_S
            self._limit = asyncio.get_running_loop().call_later(limit_s, self.abort)

    def abort(self) -> None:
        """End the connection now; what was not sent is lost."""
        if self._transport is not None:
            self._transport.abort()

    # What the transport tells.

    def data_received(self, data: bytes) -> None:
        self._has_heard = True
        self._behind.append(self._frames.receive(data))
        if len(self._behind) == 1:
            self._work()

    def eof_received(self) -> None:
        self._end("the peer ended the WebSocket connection without closing it")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the WebSocket connection was lost: {exc or 'closed'}")
        for timer in (self._listener, self._limit):
            if timer is not None:
                timer.cancel()
        self.over.set()

    def pause_writing(self) -> None:
        self._room.clear()
        self._receiver.writable(now=False)

    def resume_writing(self) -> None:
        self._room.set()
        if self._pong is not None:
            self._answer(self._pong)
        self._receiver.writable(now=True)

    # Inside.

    def _work(self) -> None:
        """Take what was read, some of it at a time."""
        try:
            for _ in range(_STEPS):
                event = next(self._behind[0], None)
                if event is not None:
                    self._take(event)
                    continue
                self._behind.popleft()
                if not self._behind:
                    self._read_or_not()
                    return
        except Broken as broken:
            self._behind.clear()
            log.debug("WebSocket peer broke the protocol", cause=broken.reason)
            self._end(f"the WebSocket connection was closed: {broken.reason}")
            self.start_closing(broken.code, broken.reason)
            return
        self._read_or_not()
        asyncio.get_running_loop().call_soon(self._work_on)

    def _work_on(self) -> None:
        if self._behind and not self.over.is_set():
            self._work()

    def _take(self, event: Event) -> None:
        match event:
            case Part():
                if not self._has_sent_close:
                    self._receiver.received(event)
            case Ping(payload):
                self._answer(payload)
            case Closed(code, reason):
                log.debug("WebSocket peer closed", code=code, reason=reason)
                is_clean = code in _CLEAN
                self._end("" if is_clean else f"the peer closed the WebSocket connection with code {code} {reason}".rstrip())
                self.start_closing(NORMAL if code == NO_CODE else code)
                self.transport.close()

    def _check(self) -> None:
        if self.ended.is_set():
            raise ConnectionResetError(self.failure or "the peer has closed the WebSocket connection")
        if self._has_sent_close:
            raise ConnectionResetError("the WebSocket connection is being closed")

    def _end(self, failure: str) -> None:
        if not self.ended.is_set():
            self.failure = "" if self._has_sent_close else failure
            self.ended.set()
            self._room.set()
            self._receiver.ended(self.failure)

    def _answer(self, payload: bytes) -> None:
        if self._has_sent_close:
            return
        self._pong = None if self._room.is_set() else payload
        if self._pong is None:
            self.transport.write(self._frames.pong(payload))

    def _say_goodbye(self, code: int, reason: str) -> None:
        if not self._has_sent_close:
            self.transport.write(self._frames.close(code, reason))
            self._has_sent_close = True
        self._holders.clear()
        self._read_or_not()

    async def _flush(self) -> None:
        """Wait until all is sent, as long as the peer takes some of it."""
        self.transport.set_write_buffer_limits(high=0)
        while (before := self.transport.get_write_buffer_size()) and not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STALL_S):
                    await self._room.wait()
            if self.transport.get_write_buffer_size() >= before:
                self.transport.abort()
                return

    def _read_or_not(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if self._holders or self._behind:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _listen(self) -> None:
        """Ping a silent peer, again and again."""
        if not self._has_heard and self._room.is_set() and not self._has_sent_close:
            self.transport.write(self._frames.ping())
        self._has_heard = False
        self._listener = asyncio.get_running_loop().call_later(_QUIET_S, self._listen)
