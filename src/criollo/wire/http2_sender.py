"""The sending half of an HTTP/2 connection: frames in order, bodies as the peer's windows allow.

What fits goes out at once; the rest of a body waits with its stream, and streams that wait take turns frame by frame, so that
a large reply holds up nobody. The end of a stream follows the last byte of its body.
"""

from collections import deque
from typing import Final

from criollo.wire import http2_frames as h2
from criollo.wire.hpack import NO_TABLE, TABLE_BYTES
from criollo.wire.http2_frames import ErrorCode, Fault

_LARGEST_FRAME: Final = 64 << 10  # of those we send, whatever the peer allows: other streams want their turn


class Stream:
    """One stream as both halves of the connection see it."""

    __slots__ = (
        "ends",
        "expected",
        "has_head",
        "is_ready",
        "left",
        "own_end",
        "parts",
        "peer_end",
        "stream_id",
        "tail",
        "window",
    )

    def __init__(self, stream_id: int, window: int, left: int) -> None:
        self.stream_id = stream_id
        self.window = window  # bytes that we may send
        self.left = left  # bytes that the peer may send
        self.expected: int | None = None  # bytes of body still to come, if the peer said
        self.has_head = False  # the peer's final head has come
        self.peer_end = self.own_end = False  # who has nothing more to say
        self.parts: deque[memoryview] = deque()  # of our body, waiting
        self.tail: bytes | None = None  # block of trailers after them
        self.ends = False  # the stream ends after them
        self.is_ready = False  # stands in the queue of those that may send


class Sender:
    """What goes out, as bytes. `streams` are the open ones, whose ends on our side are noted here."""

    def __init__(self, streams: dict[int, Stream]) -> None:
        self._streams = streams
        self._out: list[bytes] = []
        self._ready: deque[Stream] = deque()
        self._frame_bytes = h2.FRAME_BYTES
        self._before_block = b""
        self.window = self.initial_window = h2.WINDOW_BYTES
        self.body_bytes = 0  # sent so far

    def control(self, frame: bytes) -> None:
        self._out.append(frame)

    def head(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """Headers or trailers, after the body that waits."""
        if stream.parts:
            stream.tail, stream.ends = block, end
            return
        if self._before_block:
            block, self._before_block = self._before_block + block, b""
        self._out.append(h2.header_frames(stream.stream_id, block, end=end, most=h2.FRAME_BYTES))
        if end:
            self._end(stream)

    def body(self, stream: Stream, body: bytes, *, end: bool) -> None:
        size = len(body)
        if not stream.parts and size <= stream.window and size <= self.window and size <= self._frame_bytes:
            self._data(stream, body, end=end)
            return
        stream.parts.append(memoryview(body))
        stream.ends = end
        self._queue(stream)

    def drop(self, stream: Stream) -> None:
        """Forget what waits."""
        stream.parts.clear()
        stream.tail = None

    def take(self, limit: int) -> bytes:
        """Bytes to write now: frames until there are `limit` bytes of bodies, if so many may be sent."""
        if self._ready:
            stop = self.body_bytes + limit
            while self._ready and self.window > 0 and self.body_bytes < stop:
                self._turn(self._ready.popleft())
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # What the peer allows

    def widen(self, stream: Stream | None, size: int) -> bool:
        """Open a stream's window, or that of the connection; False if it would be larger than any may be."""
        target = self if stream is None else stream
        if target.window + size > h2.MOST_WINDOW_BYTES:
            return False
        target.window += size
        if stream is not None:
            self._queue(stream)
        return True

    def configure(self, name: int, value: int) -> None:
        """Obey a setting of the peer's. Raises Fault."""
        if name == h2.INITIAL_WINDOW_SIZE:
            change, self.initial_window = value - self.initial_window, value
            for stream in self._streams.values():
                if not self.widen(stream, change):
                    raise Fault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window too large")
        elif name == h2.MAX_FRAME_SIZE:
            self._frame_bytes = min(value, _LARGEST_FRAME)
        elif name == h2.HEADER_TABLE_SIZE and value < TABLE_BYTES:
            self._before_block = NO_TABLE  # we use no table; a smaller one must be acknowledged, RFC 7541, section 4.2

    def _turn(self, stream: Stream) -> None:
        """One frame of a stream that waits."""
        stream.is_ready = False
        if not stream.parts or stream.window <= 0:
            return
        part = stream.parts[0]
        size = min(len(part), stream.window, self.window, self._frame_bytes)
        is_last = size == len(part) and len(stream.parts) == 1
        if size == len(part):
            stream.parts.popleft()
        else:
            stream.parts[0] = part[size:]
        self._data(stream, bytes(part[:size]), end=is_last and stream.ends and stream.tail is None)
        if is_last and stream.tail is not None:
            tail, stream.tail = stream.tail, None
            self.head(stream, tail, end=stream.ends)
        self._queue(stream)

    def _data(self, stream: Stream, body: bytes, *, end: bool) -> None:
        size = len(body)
        stream.window -= size
        self.window -= size
        self.body_bytes += size
        self._out.append(h2.frame(h2.DATA, h2.END_STREAM if end else 0, stream.stream_id, body))
        if end:
            self._end(stream)

    def _queue(self, stream: Stream) -> None:
        if stream.parts and stream.window > 0 and not stream.is_ready:
            stream.is_ready = True
            self._ready.append(stream)

    def _end(self, stream: Stream) -> None:
        stream.own_end = True
        if stream.peer_end:
            self._streams.pop(stream.stream_id, None)
