"""A SPDY connection on any asyncio transport (a socket, TLS, a tunnel), either side of it.

    connection = SpdyConnection(max_streams=10); connection.start(transport)      # or as the protocol of a new transport
    stream = await connection.accept(); await stream.reply(); await stream.read(); await stream.write(...)
    await connection.close()

Bounds. What a stream has received and nobody has read is bounded by its window, or, for a peer without flow control (every
Kubernetes client: docs/decisions/0006-spdy-flow-control.md), by not reading the connection while one of its streams has too
much. What is to be sent waits in `write`: for the stream's window, then in turn for the transport. So a connection holds a few
MiB whatever the peer does. A peer that makes us answer and does not read the answers is cut off.

A server says nothing before its client has: client-go reads the answer to its upgrade through a buffer and forgets what else
is in it.
"""

import asyncio
import contextlib
from collections import deque
from typing import Final

from criollo.streaming.spdy_stream import SpdyStream
from criollo.telemetry.log import get_logger
from criollo.wire.spdy import SpdySession, StreamRefused
from criollo.wire.spdy_events import Event, Failed, Leaving, Opened, Ponged, Received, Replied, RoomMade, WasReset
from criollo.wire.spdy_frames import Reset
from criollo.wire.spdy_windows import SESSION_WINDOW

log = get_logger(__name__)

FRAME_BYTES: Final = 256 << 10
_UNSENT_BYTES: Final = 512 << 10  # in the transport, before writers wait
_ANSWERS_BYTES: Final = 256 << 10  # unsent beyond that: nobody reads
_STEPS: Final = 200  # frames taken in one go, about a millisecond's work
_UNREAD_BYTES: Final = 512 << 10  # of one stream without flow control, before the connection is not read
_ALL_UNREAD_BYTES: Final = SESSION_WINDOW  # of all streams likewise
_QUIET_S: Final = 30.0  # without a byte from the peer, before we ping: while it is not read, only a write finds it gone
_STALL_S: Final = 30.0  # without a byte taken by the peer, at the end
_FAREWELL_S: Final = 5.0  # for the peer to close after us


class SpdyConnection(asyncio.Protocol):
    """Streams on a transport, until `ended`. `max_streams`: those the peer may have open at a time."""

    def __init__(self, *, is_client: bool = False, max_streams: int = 10) -> None:
        self.session = SpdySession(is_client=is_client, max_streams=max_streams)
        self.ended = asyncio.Event()
        self.failure = ""
        self.payload_bytes = 0  # both ways, so far: whoever limits idleness looks whether it grows
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, SpdyStream] = {}
        self._arrived: deque[SpdyStream] = deque()
        self._accepts = True
        self._is_leaving = self._is_working = False
        self._over = asyncio.Event()
        self._someone = asyncio.Event()  # arrived, or nobody will
        self._full: set[SpdyStream] = set()
        self._unread_bytes = 0
        self._may_write = True
        self._drained = asyncio.Event()
        self._turns: dict[SpdyStream, None] = {}
        self._has_heard = False
        self._listener: asyncio.TimerHandle | None = None
        self._pings: dict[int, asyncio.Future[None]] = {}

    def start(self, transport: asyncio.Transport, first: bytes = b"") -> None:
        """Take over a transport, reading or not; `first` are bytes that were read with the upgrade."""
        transport.set_protocol(self)
        self.connection_made(transport)
        if first:
            self.data_received(first)
        if transport.is_closing():
            self.connection_lost(None)

    # What the user asks.

    async def accept(self) -> SpdyStream | None:
        """The next stream that the peer opens, not replied to yet; None: it opens no more."""
        while not self._arrived:
            if not self._accepts:
                return None
            self._someone.clear()
            await self._someone.wait()
        return self._arrived.popleft()

    def take_no_more(self) -> None:
        """Refuse what the peer opens from now on, and what was not accepted."""
        self.session.take_no_more()
        for stream in list(self._arrived):
            self.reset(stream, Reset.REFUSED_STREAM)
        self._stop_accepting()

    async def open(self, headers: dict[str, str]) -> SpdyStream:
        """Open a stream; returns when the peer has taken it. Raises ConnectionRefusedError, ConnectionResetError."""
        self._check()
        try:
            stream_id = self.session.open(headers)
        except StreamRefused as refused:
            raise ConnectionRefusedError(str(refused)) from None
        stream = self._streams[stream_id] = SpdyStream(self, stream_id, headers)
        self.flush()
        try:
            await stream.wait_taken()
        except asyncio.CancelledError:
            self.reset(stream, Reset.CANCEL)
            raise
        return stream

    async def ping(self) -> None:
        """Returns when the peer has answered. Raises ConnectionResetError."""
        self._check()
        ping_id = self.session.ping()
        self._pings[ping_id] = answered = asyncio.get_running_loop().create_future()
        self.flush()
        try:
            await answered
        finally:
            self._pings.pop(ping_id, None)

    async def close(self) -> None:
        """Send what was written, reset what is open, say goodbye, wait for the peer to go; may be repeated.

        What still comes is read and dropped: closing a socket with unread bytes would reset it and take our last output along.
        """
        if self._transport is None:
            self._end("closed")
            return
        try:
            if not self.ended.is_set():
                self._say_goodbye()
                await self._drain()
                if self._transport.can_write_eof() and not self.ended.is_set():
                    with contextlib.suppress(OSError):  # ENOTCONN: the peer has gone, which the loop has not seen yet
                        self._transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._over.wait()
        finally:
            if self._transport.get_write_buffer_size():
                self.abort()
            self._transport.close()
        with contextlib.suppress(TimeoutError):  # a tunnel has its own farewell
            async with asyncio.timeout(_STALL_S):
                await self._over.wait()

    def abort(self) -> None:
        """End the connection now; what was not sent is lost."""
        if self._transport is not None and not self._over.is_set():
            self._transport.abort()

    # What its streams ask.

    def send(self, stream: SpdyStream, payload: bytes | memoryview) -> None:
        """Write one frame; the caller has waited for room."""
        self._check()
        assert self._transport is not None
        self.flush()
        self.payload_bytes += len(payload)
        self._transport.writelines((self.session.payload(stream.stream_id, len(payload)), payload))

    def room(self, stream: SpdyStream) -> int:
        """How much of it may be written now."""
        return min(FRAME_BYTES, self.session.room(stream.stream_id)) if self._may_write and self.session.has_room else 0

    async def wait_turn(self, stream: SpdyStream) -> None:
        """Returns when there may be room for this stream. Those that wait for the connection take turns."""
        if self._may_write and self.session.has_room:  # its own window is full
            self.next_turn()
        else:
            self._turns[stream] = None
        try:
            await stream.wait_room()
        except asyncio.CancelledError:
            self._turns.pop(stream, None)
            self.next_turn()
            raise
        self._turns.pop(stream, None)
        if stream.is_lost:  # its turn may have come, and it will not write any more
            self.next_turn()

    def next_turn(self) -> None:
        """Let the stream go on that has waited longest, if there is room."""
        if self._turns and self._may_write and self.session.has_room:
            next(iter(self._turns)).let_write()

    def used_up(self, stream: SpdyStream, size_bytes: int) -> None:
        """Received bytes have been read, or are not wanted."""
        self.session.used_up(stream.stream_id, size_bytes)
        self._unread_bytes -= size_bytes
        if self._full and self._unread_bytes < _ALL_UNREAD_BYTES:
            self._full = {full for full in self._full if full.unread_bytes * 2 > _UNREAD_BYTES}
            self._read_or_not()
        self.flush()

    def reply(self, stream: SpdyStream) -> None:
        """Take a stream that the peer opened."""
        self.session.reply(stream.stream_id)
        self.flush()

    def finish(self, stream: SpdyStream) -> None:
        """Nothing more is sent on a stream."""
        self.session.finish(stream.stream_id)
        self._forget_if_closed(stream)
        self.flush()

    def reset(self, stream: SpdyStream, status: Reset) -> None:
        """End a stream both ways, from here; what came on it and was not read takes no room any more."""
        stream.drop()
        self.session.reset(stream.stream_id, status)
        self._drop(stream, "the stream was given up")
        self.flush()

    def flush(self) -> None:
        """Write what the session has to say."""
        output = self.session.take_output()
        if output and self._transport is not None and not self._transport.is_closing():
            self._transport.write(output)
            if self._transport.get_write_buffer_size() > _UNSENT_BYTES + FRAME_BYTES + _ANSWERS_BYTES:
                log.debug("SPDY peer does not read our answers")
                self.abort()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_UNSENT_BYTES, low=_UNSENT_BYTES // 4)
        self._read_or_not()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._has_heard = True
        if self._listener is None:
            self._listener = asyncio.get_running_loop().call_later(_QUIET_S, self._listen)
        self.session.receive(data, asyncio.get_running_loop().time())
        if not self._is_working:
            self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the SPDY connection was lost: {exc or 'closed by the peer'}")
        self._over.set()
        if self._listener is not None:
            self._listener.cancel()

    def pause_writing(self) -> None:
        self._may_write = False
        self._drained.clear()

    def resume_writing(self) -> None:
        self._may_write = True
        self._drained.set()
        self.next_turn()

    # Inside.

    def _work(self) -> None:
        """Take some of what was received; the rest when others had their turn."""
        self._is_working = False
        for _ in range(_STEPS):
            if not self.session.has_input:
                break
            event = self.session.step()
            if event is not None:
                self._take(event)
        self.flush()
        if self.session.has_input:
            self._is_working = True
            asyncio.get_running_loop().call_soon(self._work)
        self._read_or_not()

    def _take(self, event: Event) -> None:
        match event:
            case Received(stream_id, octets, is_last):
                self._receive(self._streams.get(stream_id), stream_id, octets, is_last=is_last)
            case Opened(stream_id, headers, is_last):
                self._arrive(SpdyStream(self, stream_id, headers), is_last=is_last)
            case Replied(stream_id, _, is_last):
                if stream := self._streams.get(stream_id):
                    stream.was_taken()
                    if is_last:
                        self._receive(stream, stream_id, b"", is_last=True)
            case WasReset(stream_id, reason):
                if stream := self._streams.get(stream_id):
                    self._drop(stream, reason)
            case RoomMade(stream_id):
                if stream := self._streams.get(stream_id):
                    stream.let_write()
                elif not stream_id:
                    self._let_all_write()
            case Ponged(ping_id):
                if (answered := self._pings.get(ping_id)) and not answered.done():
                    answered.set_result(None)
            case Leaving():
                self._stop_accepting()
            case Failed(reason):
                log.debug("SPDY peer broke the protocol", cause=reason)
                self._end(f"the peer broke the SPDY protocol: {reason}")
                self._finish()

    def _arrive(self, stream: SpdyStream, *, is_last: bool) -> None:
        self._streams[stream.stream_id] = stream
        if is_last:
            stream.received(b"", is_last=True)
        self._arrived.append(stream)
        self._someone.set()

    def _receive(self, stream: SpdyStream | None, stream_id: int, octets: bytes, *, is_last: bool) -> None:
        self.payload_bytes += len(octets)
        if stream is None or stream.is_dropped:
            self.session.used_up(stream_id, len(octets))
            octets = b""
        if stream is None:
            return
        self._unread_bytes += len(octets)
        stream.received(octets, is_last=is_last)
        if is_last:
            self._forget_if_closed(stream)
        is_full = stream.unread_bytes >= _UNREAD_BYTES or self._unread_bytes >= _ALL_UNREAD_BYTES
        if is_full and octets and not self.session.has_flow:
            self._full.add(stream)

    def _drop(self, stream: SpdyStream, reason: str) -> None:
        """The stream is no more: for its user, and among those that hold the connection."""
        self._streams.pop(stream.stream_id, None)
        with contextlib.suppress(ValueError):
            self._arrived.remove(stream)
        stream.end(reason)
        self._full.discard(stream)
        self._read_or_not()

    def _forget_if_closed(self, stream: SpdyStream) -> None:
        """A stream that has ended both ways is its user's alone."""
        if not self.session.is_open(stream.stream_id):
            self._streams.pop(stream.stream_id, None)

    def _let_all_write(self) -> None:
        for stream in list(self._streams.values()):
            stream.let_write()

    def _listen(self) -> None:
        """Ping a silent peer, again and again."""
        if not self._has_heard and self._may_write:
            self.session.ping()
            self.flush()
        self._has_heard = False
        self._listener = asyncio.get_running_loop().call_later(_QUIET_S, self._listen)

    def _stop_accepting(self) -> None:
        self._accepts = False
        self._someone.set()

    def _check(self) -> None:
        if self.ended.is_set() or self._is_leaving or self._transport is None:
            raise ConnectionResetError(self.failure or "the SPDY connection is being closed")

    def _end(self, failure: str) -> None:
        """Nothing goes either way any more."""
        if self.ended.is_set():
            return
        self.failure = failure
        self.ended.set()
        self._drained.set()
        self._stop_accepting()
        self._fail_all(failure)

    def _fail_all(self, failure: str) -> None:
        for stream in list(self._streams.values()):
            stream.lose(failure)
        self._streams.clear()
        self._full.clear()
        for answered in self._pings.values():
            if not answered.done():
                answered.set_exception(ConnectionResetError(failure))

    def _finish(self) -> None:
        """Close after a goodbye that the peer may never read."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(_FAREWELL_S, self.abort)

    def _say_goodbye(self) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            self.session.leave()
            self.session.stop()
            self._stop_accepting()
            self._fail_all("the SPDY connection is being closed")
            self._read_or_not()
            self.flush()

    async def _drain(self) -> None:
        """Wait until all is sent, as long as the peer takes some of it."""
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=0)
        while (before := self._transport.get_write_buffer_size()) and not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STALL_S):
                    await self._drained.wait()
            if self._transport.get_write_buffer_size() >= before:
                self.abort()
                return

    def _read_or_not(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._full or self._is_working:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
