"""One SPDY/3.1 session: bytes in, events out; calls in, bytes out. No sockets, no clock, either side of the connection.

    session.receive(data, now)                 the caller reads on only when `has_input` is false
    while session.has_input: event = session.step()
    transport.write(session.take_output())     after any call that may have said something

`step` takes one frame or a part of one, so the caller bounds how long it stays. Payload is not collected: it is passed on in
the pieces in which it came, and a piece that is all of what was received is passed on without a copy. To send payload, write
`session.payload(...)` and then the bytes, in frames of at most `session.room(...)`.

Damage of one stream resets it; damage that leaves the two sides with different ideas of the session ends it: `Failed`, with a
GOAWAY in the output. A session that has failed takes no more input.
"""

from collections.abc import Callable, Mapping
from typing import Final

from criollo.wire import spdy_frames as frames
from criollo.wire.spdy_events import Event, Failed, Leaving, Opened, Ponged, Received, Replied, RoomMade, WasReset
from criollo.wire.spdy_frames import FIN, UNIDIRECTIONAL, Broken, Farewell, FrameKind, Head, Reset, Setting
from criollo.wire.spdy_headers import MAX_BLOCK, Deflater, Inflater, Unacceptable
from criollo.wire.spdy_intake import Intake
from criollo.wire.spdy_windows import DEFAULT_WINDOW, SESSION_WINDOW, SLACK, STREAM_WINDOW, Budget, Overflow, Window

_REPLY: Final = {":status": "200", ":version": "HTTP/1.1"}  # the draft wants them; Kubernetes' clients do not look
MAX_CONTROL: Final = MAX_BLOCK  # a block never grows by compressing it, but for a few bytes that nobody needs


class StreamRefused(RuntimeError):
    """No stream can be opened now: too many for the peer, or the session is at its end."""


class _Stream:
    """What both sides know of a stream that is open in at least one direction."""

    __slots__ = ("is_in_open", "is_out_open", "is_replied", "window")

    def __init__(self, window: Window, *, is_in_open: bool, is_out_open: bool) -> None:
        self.window, self.is_in_open, self.is_out_open, self.is_replied = window, is_in_open, is_out_open, False


class SpdySession:
    """The state of a connection. `max_streams`: those that the peer may have open at a time; more are refused."""

    def __init__(self, *, is_client: bool, max_streams: int) -> None:
        self._is_client, self._max_streams = is_client, max_streams
        self._streams: dict[int, _Stream] = {}
        self._theirs = 0
        self._last_in, self._next_out = 0, 1 if is_client else 2
        self._next_ping = self._next_out
        self._inflater, self._deflater = Inflater(), Deflater()
        self._window = Window(DEFAULT_WINDOW, DEFAULT_WINDOW)
        self._peer_window, self._peer_streams = DEFAULT_WINDOW, frames.MAX_ID
        self._budget, self._now = Budget(), 0.0
        self._intake = Intake()
        self._head: Head | None = None  # of the frame that is being read
        self._left = 0  # bytes of its payload that are still to come
        self._output: list[bytes] = []
        self._is_over = self._takes_none = self._peer_leaves = False
        self.has_flow = False
        if is_client:
            self._turn_flow_on()

    # What comes in.

    @property
    def has_input(self) -> bool:
        """There is something for `step`."""
        return self._intake.has_more

    def receive(self, octets: bytes, now: float) -> None:
        """Take what was read at `now`, in seconds of any clock that does not go back."""
        self._now = now
        if not self._is_over:
            self._intake.add(octets)

    def step(self) -> Event | None:
        """Take one frame, or some of one; not every frame is an event."""
        try:
            return self._step()
        except Broken as broken:
            self._say(frames.goaway(self._last_in, Farewell.PROTOCOL_ERROR))
            self.stop()
            return Failed(str(broken))

    def stop(self) -> None:
        """Look at nothing any more, whatever comes."""
        self._is_over = True
        self._intake = Intake()
        self._head = None

    def take_output(self) -> bytes:
        """What is to be written now, before any payload."""
        if not self._output:
            return b""
        output, self._output = b"".join(self._output), []
        return output

    # What the caller does.

    def open(self, headers: Mapping[str, str]) -> int:
        """Open a stream, both ways; its id. Raises Refused."""
        ours = len(self._streams) - self._theirs
        if (
            self._is_over
            or self._takes_none
            or self._peer_leaves
            or ours >= self._peer_streams
            or self._next_out > frames.MAX_ID
        ):
            raise StreamRefused("the SPDY session takes no more streams")
        stream_id, self._next_out = self._next_out, self._next_out + 2
        stream = self._add(stream_id, is_in_open=True, is_out_open=True)
        stream.is_replied = True
        self._say(frames.syn_stream(stream_id, self._deflater.block(headers)))
        return stream_id

    def reply(self, stream_id: int) -> None:
        """Take a stream of the peer's; said once, before anything is sent on it. Nothing for one that is gone."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.is_replied:
            stream.is_replied = True
            self._say(frames.with_headers(FrameKind.SYN_REPLY, stream_id, self._deflater.block(_REPLY)))

    def room(self, stream_id: int) -> int:
        """How many bytes may be sent on a stream now; 0 also for one that takes none."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_out_open:
            return 0
        if not self.has_flow:
            return frames.MAX_PAYLOAD
        return max(0, min(stream.window.room_out, self._window.room_out, frames.MAX_PAYLOAD))

    @property
    def has_room(self) -> bool:
        """Something may be sent on some stream."""
        return not self.has_flow or self._window.room_out > 0

    def payload(self, stream_id: int, size_bytes: int) -> bytes:
        """The head for so many bytes, which the caller writes next; no more than `room`."""
        assert 0 < size_bytes <= self.room(stream_id), "no room"
        self._window.room_out -= size_bytes
        self._streams[stream_id].window.room_out -= size_bytes
        return frames.payload_head(stream_id, size_bytes)

    def finish(self, stream_id: int) -> None:
        """Say that nothing more is sent on a stream. May be repeated."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_out_open:
            stream.is_out_open = False
            self._say(frames.payload_head(stream_id, 0, FIN))
            self._forget_if_closed(stream_id, stream)

    def reset(self, stream_id: int, status: Reset = Reset.CANCEL) -> None:
        """End a stream both ways. Nothing for one that is gone."""
        if self._streams.get(stream_id) is not None:
            self._forget(stream_id)
            self._say(frames.reset(stream_id, status))

    def used_up(self, stream_id: int, size_bytes: int) -> None:
        """Received bytes take no room here any more: the peer may send as many again."""
        if self._window.used_up(size_bytes) and self.has_flow:
            self._say(frames.window_update(0, self._window.give_back()))
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_in_open and stream.window.used_up(size_bytes) and self.has_flow:
            self._say(frames.window_update(stream_id, stream.window.give_back()))

    def is_open(self, stream_id: int) -> bool:
        """In at least one direction."""
        return stream_id in self._streams

    def ping(self) -> int:
        """Ask the peer for a sign of life; the id that `Ponged` will have."""
        ping_id = self._next_ping
        self._next_ping = (self._next_ping + 2) & frames.MAX_ID
        self._say(frames.ping(ping_id))
        return ping_id

    def take_no_more(self) -> None:
        """Refuse every stream that the peer opens from now on."""
        self._takes_none = True

    def leave(self) -> None:
        """Reset what is open and say goodbye."""
        for stream_id in list(self._streams):
            self.reset(stream_id)
        self._takes_none = True
        self._say(frames.goaway(self._last_in, Farewell.OK))

    # Inside: reading frames.

    def _step(self) -> Event | None:
        if self._head is None:
            self._head = self._read_head()
        head = self._head
        if head is None:
            return None
        if head.kind is None:
            return self._pass_on(head)
        if head.kind in _TAKES:
            return self._take_control(head)
        self._step_over()
        return None

    def _read_head(self) -> Head | None:
        octets = self._intake.whole(frames.HEAD_BYTES)
        if octets is None:
            return None
        head = frames.read_head(octets)
        self._left = head.length
        if head.kind is None:
            self._check_payload(head)
        elif head.kind not in _TAKES:
            self._budget.charge(self._now)  # of an extension: stepped over
        elif head.length > MAX_CONTROL:
            raise Broken(f"{FrameKind(head.kind).name} of {head.length} bytes")
        return head

    def _step_over(self) -> None:
        self._left -= len(self._intake.piece(self._left))
        if not self._left:
            self._head = None

    def _take_control(self, head: Head) -> Event | None:
        payload = self._intake.whole(head.length)
        if payload is None:
            return None
        self._head = None
        return _TAKES[head.kind or 0](self, payload, head.flags)

    # Inside: payload.

    def _check_payload(self, head: Head) -> None:
        if head.stream_id == 0:
            raise Broken("payload on stream 0")
        if self.has_flow and head.length > self._window.room_in + SLACK:
            raise Broken(f"{head.length} bytes where the session's window has {self._window.room_in}")
        if head.stream_id not in self._streams and not self._was_open(head.stream_id):
            self._refuse(head.stream_id, Reset.INVALID_STREAM)

    def _pass_on(self, head: Head) -> Event | None:
        """The next piece of a frame's payload; for a stream that is gone it is dropped."""
        octets = self._intake.piece(self._left)
        size = len(octets)
        self._left -= size
        is_last = not self._left and bool(head.flags & FIN)
        if not self._left:
            self._head = None
        self._window.room_in -= size
        stream = self._streams.get(head.stream_id)
        refusal = self._judge(stream, size)
        if stream is None or refusal is not None:
            self.used_up(head.stream_id, size)
            return self._break_off(head.stream_id, *refusal) if refusal else None
        stream.window.room_in -= size
        if is_last:
            stream.is_in_open = False
            self._forget_if_closed(head.stream_id, stream)
        elif not size:
            return None
        return Received(head.stream_id, octets, is_last)

    def _judge(self, stream: _Stream | None, size: int) -> tuple[Reset, str] | None:
        if stream is None:
            return None
        if not stream.is_in_open:
            return Reset.STREAM_ALREADY_CLOSED, "payload after its end"
        if self.has_flow and size > stream.window.room_in + SLACK:
            return Reset.FLOW_CONTROL_ERROR, "more payload than its window allows"
        return None

    # Inside: control frames.

    def _take_syn_stream(self, payload: bytes, flags: int) -> Event | None:
        syn = frames.read_syn_stream(payload)
        headers, complaint = self._inflate(payload[frames.SYN_STREAM_FIXED :])
        if syn.stream_id <= self._last_in or syn.stream_id % 2 == self._next_out % 2:
            raise Broken(f"stream {syn.stream_id} opened after stream {self._last_in}")
        self._last_in = syn.stream_id
        if complaint or self._takes_none or self._peer_leaves or self._theirs >= self._max_streams:
            self._refuse(syn.stream_id, Reset.PROTOCOL_ERROR if complaint else Reset.REFUSED_STREAM)
            return None
        is_last = bool(flags & FIN)
        stream = self._add(syn.stream_id, is_in_open=not is_last, is_out_open=not flags & UNIDIRECTIONAL)
        self._forget_if_closed(syn.stream_id, stream)
        return Opened(syn.stream_id, headers, is_last)

    def _take_syn_reply(self, payload: bytes, flags: int) -> Event | None:
        stream_id = frames.read_stream_id(payload)
        headers, complaint = self._inflate(payload[frames.REPLY_FIXED :])
        stream = self._streams.get(stream_id)
        if stream is None:
            self._budget.charge(self._now)
            return None
        if complaint or self._is_theirs(stream_id):
            return self._break_off(stream_id, Reset.PROTOCOL_ERROR, complaint or "a reply to a stream of the peer's own")
        if flags & FIN and stream.is_in_open:
            self._close_in(stream_id, stream)
        return Replied(stream_id, headers, bool(flags & FIN))

    def _take_headers(self, payload: bytes, flags: int) -> Event | None:
        stream_id = frames.read_stream_id(payload)
        _, complaint = self._inflate(payload[frames.REPLY_FIXED :])
        self._budget.charge(self._now)
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_in_open:
            return None
        if complaint:
            return self._break_off(stream_id, Reset.PROTOCOL_ERROR, complaint)
        if flags & FIN:
            self._close_in(stream_id, stream)
            return Received(stream_id, b"", True)
        return None

    def _take_reset(self, payload: bytes, _flags: int) -> Event | None:
        stream_id, status = frames.read_reset(payload)
        if stream_id == 0:
            raise Broken("reset of stream 0")
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_replied:  # opened and reset at once, again and again, is a flood
            self._budget.charge(self._now)
        if stream is None:
            return None
        if status == Reset.INVALID_STREAM and not stream.is_out_open:
            # spdy-transport forgets a stream whose end it has queued, and says so, ahead of that end, to a window update.
            self._budget.charge(self._now)
            return None
        self._forget(stream_id)
        return WasReset(stream_id, f"the peer reset the stream with status {status}")

    def _take_settings(self, payload: bytes, _flags: int) -> Event | None:
        self._budget.charge(self._now)
        values = frames.read_settings(payload)
        self._turn_flow_on()
        self._peer_streams = values.get(Setting.MAX_CONCURRENT_STREAMS, self._peer_streams)
        window = values.get(Setting.INITIAL_WINDOW_SIZE, self._peer_window)
        if window > frames.MAX_WINDOW:
            raise Broken(f"initial window of {window} bytes")
        delta, self._peer_window = window - self._peer_window, window
        try:
            for stream in self._streams.values():
                stream.window.widen_out(delta)
        except Overflow as overflow:
            raise Broken(str(overflow)) from None
        return RoomMade(0)

    def _take_ping(self, payload: bytes, _flags: int) -> Event | None:
        ping_id = frames.read_ping(payload)
        if ping_id % 2 == self._next_ping % 2:
            return Ponged(ping_id)
        self._budget.charge(self._now)
        self._say(frames.ping(ping_id))
        return None

    def _take_goaway(self, payload: bytes, _flags: int) -> Event | None:
        last_id, _ = frames.read_goaway(payload)
        self._budget.charge(self._now)
        self._peer_leaves = True
        return Leaving(last_id)

    def _take_window_update(self, payload: bytes, _flags: int) -> Event | None:
        stream_id, delta = frames.read_window_update(payload)
        self._turn_flow_on()
        stream = self._streams.get(stream_id)
        if stream is None and stream_id:
            return None
        if not 0 < delta <= frames.MAX_WINDOW:
            if stream is None:
                raise Broken(f"session window raised by {delta}")
            return self._break_off(stream_id, Reset.PROTOCOL_ERROR, f"window raised by {delta}")
        try:
            (stream.window if stream else self._window).widen_out(delta)
        except Overflow as overflow:
            if stream is None:
                raise Broken(str(overflow)) from None
            return self._break_off(stream_id, Reset.FLOW_CONTROL_ERROR, str(overflow))
        return RoomMade(stream_id)

    # Inside: what several of them need.

    def _inflate(self, block: bytes) -> tuple[dict[str, str], str]:
        try:
            return self._inflater.block(block), ""
        except Unacceptable as unacceptable:
            return {}, str(unacceptable)

    def _turn_flow_on(self) -> None:
        """The peer keeps to windows, or we do as a client: from now on they hold, and ours are told."""
        if self.has_flow:
            return
        self.has_flow = True
        self._say(frames.settings({Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW}))
        for stream_id, stream in self._streams.items():
            stream.window.size = STREAM_WINDOW
            stream.window.room_in += STREAM_WINDOW - DEFAULT_WINDOW
            if stream.is_in_open and (given := stream.window.give_back()):
                self._say(frames.window_update(stream_id, given))
        self._window.owed += SESSION_WINDOW - DEFAULT_WINDOW
        self._window.size = SESSION_WINDOW
        self._say(frames.window_update(0, self._window.give_back()))

    def _add(self, stream_id: int, *, is_in_open: bool, is_out_open: bool) -> _Stream:
        window = Window(STREAM_WINDOW if self.has_flow else DEFAULT_WINDOW, self._peer_window)
        self._streams[stream_id] = stream = _Stream(window, is_in_open=is_in_open, is_out_open=is_out_open)
        self._theirs += self._is_theirs(stream_id)
        return stream

    def _close_in(self, stream_id: int, stream: _Stream) -> None:
        stream.is_in_open = False
        self._forget_if_closed(stream_id, stream)

    def _forget_if_closed(self, stream_id: int, stream: _Stream) -> None:
        if not stream.is_in_open and not stream.is_out_open:
            self._forget(stream_id)

    def _forget(self, stream_id: int) -> None:
        del self._streams[stream_id]
        self._theirs -= self._is_theirs(stream_id)

    def _break_off(self, stream_id: int, status: Reset, reason: str) -> WasReset:
        self.reset(stream_id, status)
        return WasReset(stream_id, reason)

    def _refuse(self, stream_id: int, status: Reset) -> None:
        self._budget.charge(self._now)
        self._say(frames.reset(stream_id, status))

    def _is_theirs(self, stream_id: int) -> bool:
        return stream_id % 2 != self._next_out % 2

    def _was_open(self, stream_id: int) -> bool:
        return stream_id <= self._last_in if self._is_theirs(stream_id) else stream_id < self._next_out

    def _say(self, octets: bytes) -> None:
        if not self._is_over:
            self._output.append(octets)


_TAKES: Final[dict[int, Callable[[SpdySession, bytes, int], Event | None]]] = {
    FrameKind.SYN_STREAM: SpdySession._take_syn_stream,
    FrameKind.SYN_REPLY: SpdySession._take_syn_reply,
    FrameKind.RST_STREAM: SpdySession._take_reset,
    FrameKind.SETTINGS: SpdySession._take_settings,
    FrameKind.PING: SpdySession._take_ping,
    FrameKind.GOAWAY: SpdySession._take_goaway,
    FrameKind.HEADERS: SpdySession._take_headers,
    FrameKind.WINDOW_UPDATE: SpdySession._take_window_update,
}
