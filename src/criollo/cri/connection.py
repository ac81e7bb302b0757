"""One HTTP/2 connection over a transport, client or server: the socket here, the protocol in `wire.http2`, meaning in the
`Side` above it.

The `Side` is told what happens in order; what it answers while it is told goes out in one write. A reply that the peer's
windows do not take waits in the session, and `taken` waits for it. Who does not read our answers is not read either.
"""

import asyncio
from typing import Final, Protocol, cast

from criollo.telemetry.log import get_logger
from criollo.wire.http2 import Http2Session
from criollo.wire.http2_events import Body, Event, Failed, Head, Reset
from criollo.wire.http2_frames import ErrorCode

log = get_logger(__name__)

_BATCH: Final = 256 << 10  # bytes written at once, before asking whether the peer reads
_READ: Final = 32 << 10  # bytes read at once; asyncio's own 256 KiB for each read cost more than a small call does


class Side(Protocol):
    """What sits on a connection. Its functions return at once and raise nothing."""

    def on_head(self, head: Head) -> None: ...
    def on_body(self, body: Body) -> None: ...
    def on_reset(self, stream_id: int) -> None: ...
    def on_closed(self) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """HTTP/2 over a transport. `closed` is set when it has ended, for whatever reason."""

    def __init__(self, side: Side, *, client: bool, streams: int = 250) -> None:
        self._side, self._is_client = side, client
        self._session = Http2Session(client=client, streams=streams)
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_READ))
        self._transport: asyncio.Transport | None = None
        self._is_paused = self._is_receiving = False
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.received_at = 0.0  # time of the loop when the bytes at hand came
        self.closed = asyncio.Event()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        self._is_paused = True
        if not self._is_client and self._transport and not self.is_closing:
            self._transport.pause_reading()  # who does not read our answers asks nothing more

    def resume_writing(self) -> None:
        self._is_paused = False
        if not self._is_client and self._transport and not self.is_closing:
            self._transport.resume_reading()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_paused = False
        self._wake()
        if not self.closed.is_set():
            self.closed.set()
            self._side.on_closed()

    # What the side calls

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer's that somebody else has read."""
        self.received_at = self._loop.time()
        self._is_receiving = True
        try:
            for event in self._session.receive(data, self.received_at):
                self._dispatch(event)
        except Exception:  # the border of a connection: a bug met here must not reach another one
            log.exception("closing an HTTP/2 connection after an error of our own")
            self._session.close(ErrorCode.INTERNAL_ERROR)
        finally:
            self._is_receiving = False
        self.flush()

    @property
    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def open(self, block: bytes, body: bytes) -> int | None:
        """Send a request; give its stream. None when the peer takes no further one."""
        stream_id = self._session.open(block)
        if stream_id is not None:
            self._session.send_body(stream_id, body, end=True)
            self.flush()
        return stream_id

    def send(self, stream_id: int, *, head: bytes = b"", body: bytes = b"", trailers: bytes = b"") -> None:
        """Queue what is given of a message, which ends with its trailers; `flush` sends. Nothing if the stream is gone."""
        if head:
            self._session.send_head(stream_id, head)
        if body:
            self._session.send_body(stream_id, body)
        if trailers:
            self._session.send_head(stream_id, trailers, end=True)

    def waits(self, stream_id: int) -> bool:
        """Whether the peer has still to read or to make room before what was sent on a stream is on its way."""
        return not self.is_closing and (self._is_paused or self._session.waits(stream_id))

    async def taken(self, stream_id: int) -> None:
        """Wait until the peer has taken what was sent on a stream, or the stream or connection is gone."""
        self.flush()
        while self.waits(stream_id):
            waiter = self._waiting.setdefault(stream_id, self._loop.create_future())
            try:
                await waiter
            finally:
                self._waiting.pop(stream_id, None)

    def reset(self, stream_id: int, *, polite: bool = False) -> None:
        """End a stream in both directions; `polite` where the answer is complete and only the rest is unwanted."""
        self._session.reset(stream_id, ErrorCode.NO_ERROR if polite else ErrorCode.CANCEL)

    def flush(self) -> None:
        """Write what is queued, as far as the peer reads; not before all that has been received is dispatched."""
        transport = self._transport
        if self._is_receiving or transport is None or transport.is_closing():
            return
        while not self._is_paused and (data := self._session.take(_BATCH)):
            transport.write(data)
        if self._waiting:
            self._wake()
        if self._session.is_closed or (self._session.is_going_away and not self._session.open_streams):
            self.close()

    def close(self) -> None:
        """Send a GOAWAY, then close; replies that wait are lost. May be repeated."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._session.close()
        if self._is_paused:
            transport.abort()  # the peer reads nothing: it will not read the GOAWAY either
        else:
            transport.write(self._session.take(0))
            transport.close()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Body):
            self._side.on_body(event)
        elif isinstance(event, Head):
            self._side.on_head(event)
        elif isinstance(event, Reset):
            self._side.on_reset(event.stream_id)
        elif isinstance(event, Failed):
            tell = log.warning if event.code is ErrorCode.ENHANCE_YOUR_CALM else log.debug
            tell("closing an HTTP/2 connection", code=event.code.name, cause=event.text)

    def _wake(self) -> None:
        for stream_id, waiter in self._waiting.items():
            if not waiter.done() and not self.waits(stream_id):
                waiter.set_result(None)
