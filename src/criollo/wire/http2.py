"""One HTTP/2 connection, client or server, without a socket: bytes in, events out; messages in, bytes out.

    session = Session(client=False)              # has its preface and settings ready to be taken
    for event in session.receive(data, now): …   # Head, Body, Reset, GoneAway; Failed is the last one
    session.send_head(…); session.send_body(…)   # nothing happens on a stream that is gone
    transport.write(session.take(limit))

Received bytes are credited to the peer's windows at once, half a window at a time: who takes the events bounds what it keeps.
A peer that breaks a rule of a stream has the stream reset, of the connection the connection closed, with the code of RFC 9113.
Streams are not pushed, priorities not obeyed, fields are sent without compression that needs memory.
"""

from typing import Final

from criollo.wire import http2_frames as h2
from criollo.wire.http2_blocks import Block, Blocks
from criollo.wire.http2_events import Body, Event, Failed, GoneAway, Head, Reset
from criollo.wire.http2_fields import FieldRules, Malformed
from criollo.wire.http2_floods import Floods
from criollo.wire.http2_frames import ErrorCode, Fault, Frame, FrameReader
from criollo.wire.http2_sender import Sender, Stream

HEADER_LIST_BYTES: Final = 64 << 10
STREAM_WINDOW: Final = 1 << 20
CONNECTION_WINDOW: Final = 4 << 20
_FORGOTTEN: Final = 1000  # streams reset by us that the peer may still be sending on
_WORTH_BYTES: Final = 1024  # data frames smaller than this pay for no idle frames


class Http2Session:
    """The state of one connection. `streams` limits how many a client may have open at once."""

    def __init__(self, *, client: bool, streams: int = 250) -> None:
        self._is_client, self._limit = client, streams
        self._streams: dict[int, Stream] = {}
        self._sender = Sender(self._streams)
        self._reader = FrameReader()
        self._preface = b"" if client else h2.PREFACE  # what is still to come of the client's
        self._blocks = Blocks(list_bytes=HEADER_LIST_BYTES)
        self._rules = FieldRules()
        self._floods = None if client else Floods()
        self._forgotten: dict[int, None] = {}
        self._left = CONNECTION_WINDOW  # bytes that the peer may send
        self._last = 0  # the highest stream that the client has opened
        self._peer_streams: int | None = None  # how many we may open
        self._has_settings = self._is_acknowledged = False
        self._events: list[Event] = []
        self._now = 0.0
        self.is_closed = self.is_going_away = False
        self._begin()

    def _begin(self) -> None:
        if self._is_client:
            self._sender.control(h2.PREFACE)
            own = {h2.ENABLE_PUSH: 0}
        else:
            own = {h2.MAX_CONCURRENT_STREAMS: self._limit}
        own |= {h2.INITIAL_WINDOW_SIZE: STREAM_WINDOW, h2.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES}
        self._sender.control(h2.settings(own))
        self._sender.control(h2.window_update(0, CONNECTION_WINDOW - h2.WINDOW_BYTES))

    # What goes out

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def open(self, block: bytes) -> int | None:
        """Start a request without trailers; give its stream. None when the server takes no further one now, or at all."""
        if self.is_closed or self.is_going_away or self._last >= h2.MOST_WINDOW_BYTES - 2:
            return None
        if self._peer_streams is not None and len(self._streams) >= self._peer_streams:
            return None
        self._last = self._last + 2 if self._last else 1
        stream = self._streams[self._last] = Stream(self._last, self._sender.initial_window, STREAM_WINDOW)
        self._sender.head(stream, block, end=False)
        return self._last

    def send_head(self, stream_id: int, block: bytes, *, end: bool = False) -> None:
        """Queue a head or trailers."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.own_end:
            self._sender.head(stream, block, end=end)

    def send_body(self, stream_id: int, body: bytes, *, end: bool = False) -> None:
        """Queue a body or a part of one, which is kept and must not change."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.own_end:
            self._sender.body(stream, body, end=end)

    def waits(self, stream_id: int) -> bool:
        """Whether some of a stream's body has not been taken yet."""
        stream = self._streams.get(stream_id)
        return stream is not None and bool(stream.parts)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream in both directions, if it has not ended; what waits of it is dropped."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._sender.drop(stream)
            self._send_reset(stream_id, code)

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """Queue a GOAWAY; nothing is received or begun after that. May be repeated."""
        if not self.is_closed:
            self.is_closed = True
            self._sender.control(h2.goaway(0 if self._is_client else self._last, code, text))

    def take(self, limit: int) -> bytes:
        """The bytes to write now, in pieces of about `limit`; empty when there are none, or the peer's windows are."""
        before = self._sender.body_bytes
        found = self._sender.take(limit)
        if self._floods and self._sender.body_bytes - before >= _WORTH_BYTES:
            self._floods.worked()
        return found

    # What comes in

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What these bytes mean, in order. `now` is a time in seconds that only goes forward."""
        self._events, self._now = [], now
        if self.is_closed:
            return []
        try:
            if self._preface:
                data = self._greet(data)
            for frame in self._reader.frames(data):
                self._frame(frame)
        except Fault as fault:
            self.close(fault.code, fault.text)
            self._events.append(Failed(fault.code, fault.text))
        return self._events

    def _greet(self, data: bytes) -> bytes:
        """Take the client's preface off; give what follows."""
        part = data[: len(self._preface)]
        if not self._preface.startswith(part):
            raise Fault(ErrorCode.PROTOCOL_ERROR, "the connection does not begin with the preface of HTTP/2")
        self._preface = self._preface[len(part) :]
        return data[len(part) :]

    def _frame(self, frame: Frame) -> None:
        kind = frame.kind
        if self._blocks.awaits and (kind != h2.CONTINUATION or frame.stream_id != self._blocks.awaits):
            raise Fault(ErrorCode.PROTOCOL_ERROR, "a block of fields is interrupted")
        if not self._has_settings and (kind != h2.SETTINGS or frame.flags & h2.ACK):
            raise Fault(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
        take = _TAKERS.get(kind)
        if take is None:
            self._idle()  # of a later version
        elif (frame.stream_id == 0) is not (kind in _OF_CONNECTION) and kind != h2.WINDOW_UPDATE:
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"a frame of kind {kind} on stream {frame.stream_id}")
        else:
            take(self, frame)

    # Messages

    def _headers(self, frame: Frame) -> None:
        block = self._blocks.begin(frame) if frame.kind == h2.HEADERS else self._blocks.go_on(frame)
        if block is not None:
            self._head(block)

    def _head(self, block: Block) -> None:
        stream_id, fields, ends = block
        stream = self._streams.get(stream_id)
        is_new = stream is None and not self._is_client and stream_id > self._last
        if is_new and not stream_id & 1:
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"a client opens stream {stream_id}")
        try:
            if is_new:
                self._last = stream_id
                self._request(Head(stream_id, fields, False, ends))
            elif stream is None:
                self._late(stream_id)
            elif stream.peer_end:
                self._fail(stream_id, ErrorCode.STREAM_CLOSED)
            elif self._is_client and not stream.has_head:
                self._response(stream, Head(stream_id, fields, False, ends))
            else:
                self._trailers(stream, Head(stream_id, fields, True, ends))
        except Malformed:
            self._fail(stream_id, ErrorCode.PROTOCOL_ERROR)

    def _request(self, head: Head) -> None:
        if self._floods:
            self._floods.worked()
        if len(self._streams) >= self._limit:
            if self._is_acknowledged:
                raise Fault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {self._limit} streams at once")
            self._fail(head.stream_id, ErrorCode.REFUSED_STREAM)  # it may not have known
            return
        expected = self._rules.request(head.fields)
        stream = self._streams[head.stream_id] = Stream(head.stream_id, self._sender.initial_window, STREAM_WINDOW)
        stream.has_head, stream.expected = True, expected
        self._deliver(stream, head)

    def _response(self, stream: Stream, head: Head) -> None:
        if self._rules.response(head.fields) >= 200:
            stream.has_head = True
            self._deliver(stream, head)
        elif head.ends:
            raise Malformed("an informational response ends the stream")

    def _trailers(self, stream: Stream, head: Head) -> None:
        self._rules.trailers(head.fields)
        if not head.ends:
            raise Malformed("trailers do not end the stream")
        self._deliver(stream, head)

    def _data(self, frame: Frame) -> None:
        size = len(frame.payload)
        body = h2.unpadded(frame) if frame.flags & h2.PADDED else frame.payload
        self._left -= size
        if self._left < 0:
            raise Fault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window allows")
        if self._left < CONNECTION_WINDOW // 2:
            self._sender.control(h2.window_update(0, CONNECTION_WINDOW - self._left))
            self._left = CONNECTION_WINDOW
        ends = bool(frame.flags & h2.END_STREAM)
        if len(body) < _WORTH_BYTES:
            if not body and not ends:
                self._idle()
        elif self._floods:
            self._floods.worked()
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id)
        elif stream.peer_end:
            self._fail(frame.stream_id, ErrorCode.STREAM_CLOSED)
        elif not stream.has_head:
            self._fail(frame.stream_id, ErrorCode.PROTOCOL_ERROR)
        elif size > stream.left:
            self._fail(frame.stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self._body(stream, size, Body(frame.stream_id, body, ends))

    def _body(self, stream: Stream, size: int, body: Body) -> None:
        stream.left -= size
        if stream.left < STREAM_WINDOW // 2 and not body.ends:
            self._sender.control(h2.window_update(stream.stream_id, STREAM_WINDOW - stream.left))
            stream.left = STREAM_WINDOW
        if stream.expected is not None:
            stream.expected -= len(body.payload)
        try:
            self._deliver(stream, body)
        except Malformed:
            self._fail(stream.stream_id, ErrorCode.PROTOCOL_ERROR)

    def _deliver(self, stream: Stream, event: Head | Body) -> None:
        if stream.expected is not None and (stream.expected < 0 or (event.ends and stream.expected)):
            raise Malformed("the body is not as long as content-length says")
        self._events.append(event)
        if event.ends:
            stream.peer_end = True
            if stream.own_end:
                del self._streams[stream.stream_id]

    def _late(self, stream_id: int) -> None:
        """A message's frame on a stream that is not open: ours to ignore if we reset it, else the peer's mistake."""
        if self._is_idle(stream_id):
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which nobody opened")
        self._idle()
        if stream_id not in self._forgotten:
            raise Fault(ErrorCode.STREAM_CLOSED, f"a frame on stream {stream_id}, which has ended")

    # The other frames

    def _reset(self, frame: Frame) -> None:
        code, stream_id = h2.number_of(frame), frame.stream_id
        if self._is_idle(stream_id):
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"reset of stream {stream_id}, which nobody opened")
        self._forgotten.pop(stream_id, None)
        self._idle()
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._sender.drop(stream)
            self._events.append(Reset(stream_id, code))
            self._count_reset()

    def _settings(self, frame: Frame) -> None:
        self._idle()
        if frame.flags & h2.ACK:
            if frame.payload:
                raise Fault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with settings")
            self._is_acknowledged = True
            return
        for name, value in h2.settings_of(frame.payload):
            if name == h2.MAX_CONCURRENT_STREAMS:
                self._peer_streams = value
            elif name == h2.ENABLE_PUSH and value and self._is_client:
                raise Fault(ErrorCode.PROTOCOL_ERROR, "a server enables push")
            self._sender.configure(name, value)
        self._has_settings = True
        self._sender.control(h2.frame(h2.SETTINGS, h2.ACK, 0))

    def _ping(self, frame: Frame) -> None:
        self._idle()
        if len(frame.payload) != 8:
            raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(frame.payload)} bytes")
        if not frame.flags & h2.ACK:
            self._sender.control(h2.frame(h2.PING, h2.ACK, 0, frame.payload))

    def _window_update(self, frame: Frame) -> None:
        self._idle()
        size, stream_id = h2.number_of(frame), frame.stream_id
        if stream_id == 0:
            if not size:
                raise Fault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            if not self._sender.widen(None, size):
                raise Fault(ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE makes the connection's window too large")
            return
        if self._is_idle(stream_id):
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE of stream {stream_id}, which nobody opened")
        stream = self._streams.get(stream_id)
        if not size:
            self._fail(stream_id, ErrorCode.PROTOCOL_ERROR)
        elif stream is not None and not self._sender.widen(stream, size):
            self._fail(stream_id, ErrorCode.FLOW_CONTROL_ERROR)

    def _priority(self, frame: Frame) -> None:
        self._idle()
        if len(frame.payload) != 5:
            self._fail(frame.stream_id, ErrorCode.FRAME_SIZE_ERROR)

    def _push(self, frame: Frame) -> None:
        raise Fault(ErrorCode.PROTOCOL_ERROR, "a push, which nobody may send us")

    def _goaway(self, frame: Frame) -> None:
        payload = frame.payload
        if len(payload) < 8:
            raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        last, code = int.from_bytes(payload[:4], "big") & h2.MOST_WINDOW_BYTES, int.from_bytes(payload[4:8], "big")
        self.is_going_away = True
        for stream_id in [each for each in self._streams if self._is_client and each > last]:
            self._sender.drop(self._streams.pop(stream_id))
            self._events.append(Reset(stream_id, ErrorCode.REFUSED_STREAM))
        self._events.append(GoneAway(code, payload[8:208].decode("utf-8", "replace")))

    # Faults and counts

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self._last or not stream_id & 1

    def _fail(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream for the peer's fault."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._sender.drop(stream)
            self._events.append(Reset(stream_id, code))
        self._send_reset(stream_id, code)
        self._count_reset()

    def _send_reset(self, stream_id: int, code: ErrorCode) -> None:
        self._sender.control(h2.reset(stream_id, code))
        self._forgotten[stream_id] = None
        if len(self._forgotten) > _FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    def _count_reset(self) -> None:
        if self._floods:
            self._floods.reset(self._now)

    def _idle(self) -> None:
        if self._floods:
            self._floods.idle(self._now)


_OF_CONNECTION: Final = frozenset((h2.SETTINGS, h2.PING, h2.GOAWAY))
_TAKERS: Final = {
    h2.DATA: Http2Session._data,
    h2.HEADERS: Http2Session._headers,
    h2.PRIORITY: Http2Session._priority,
    h2.RST_STREAM: Http2Session._reset,
    h2.SETTINGS: Http2Session._settings,
    h2.PUSH_PROMISE: Http2Session._push,
    h2.PING: Http2Session._ping,
    h2.GOAWAY: Http2Session._goaway,
    h2.WINDOW_UPDATE: Http2Session._window_update,
    h2.CONTINUATION: Http2Session._headers,
}
