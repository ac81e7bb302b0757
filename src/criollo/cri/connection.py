"""One HTTP/2 connection, client or server: bytes and flow control here, meaning in the `Side` above it.

The `Side` is told what happens in order; it answers through `send_headers`, `send_body` and `reset`. Frames, HPACK and the
state of streams are h2's. What a peer may do is limited: streams at once, 64 KiB of headers, and resets in a time, since
opening and resetting streams costs the peer nothing and us a lot (CVE-2023-39325, CVE-2025-8671).
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Protocol, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from criollo.telemetry.log import get_logger

log = get_logger(__name__)

Headers = list[tuple[str, str]]

HEADER_LIST_BYTES = 64 << 10
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 4 << 20
RESETS = 1000
RESETS_IN_S = 10.0
_SLICE = 16 << 10  # received bytes handled at once: between slices a flood can be noticed
_BATCH = 256 << 10  # bytes written at once, before asking whether the peer reads


class Side(Protocol):
    """What sits on a connection. Its functions return at once and raise nothing."""

    def on_headers(self, stream_id: int, headers: Headers, *, trailers: bool) -> None: ...
    def on_data(self, stream_id: int, data: bytes) -> None: ...
    def on_end(self, stream_id: int) -> None: ...
    def on_reset(self, stream_id: int) -> None: ...
    def on_closed(self) -> None: ...


class Connection(asyncio.Protocol):
    """HTTP/2 over a transport. `closed` is set when it has ended, for whatever reason."""

    def __init__(self, side: Side, *, client: bool, streams: int = 250) -> None:
        self._side, self._is_client = side, client
        config = h2.config.H2Configuration(
            client_side=client,
            header_encoding="utf-8",
            # What we send is made in `grpc`, lower case and percent-encoded; checking it again costs 0.1 ms a call.
            normalize_outbound_headers=False,
            validate_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        initial: dict[h2.settings.SettingCodes, int] = {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
        }
        self._h2.local_settings = h2.settings.Settings(client=client, initial_values=initial)
        self._transport: asyncio.Transport | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._window = asyncio.Event()
        self._resets: deque[float] = deque(maxlen=RESETS)
        self.closed = asyncio.Event()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), _SLICE):
                if self.is_closing:
                    return
                for event in self._h2.receive_data(data[start : start + _SLICE]):
                    if not self.is_closing:
                        self._dispatch(event)
                self.flush()
        except h2.exceptions.ProtocolError as error:
            log.debug("closing an HTTP/2 connection", cause=error)
            self.close()  # h2 has the GOAWAY with the reason ready
        except Exception:  # the border of a connection: a bug met here must not reach another one
            log.exception("closing an HTTP/2 connection after an error of our own")
            self.close()

    def pause_writing(self) -> None:
        self._may_write.clear()
        if not self._is_client and self._transport and not self.is_closing:
            self._transport.pause_reading()  # who does not read our answers asks nothing more

    def resume_writing(self) -> None:
        self._may_write.set()
        if not self._is_client and self._transport and not self.is_closing:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write.set()
        self._window.set()
        if not self.closed.is_set():
            self.closed.set()
            self._side.on_closed()

    # What the side calls

    @property
    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def open_stream(self, headers: Headers) -> int:
        """Start a request without trailers; give its stream."""
        stream_id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream_id, headers)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, *, end: bool = False) -> None:
        """Queue headers or trailers; nothing happens if the stream is gone. `flush` sends."""
        if self._is_open(stream_id):
            self._h2.send_headers(stream_id, headers, end_stream=end)

    async def send_body(self, stream_id: int, body: bytes, *, end: bool = False) -> None:
        """Queue and send a body as fast as the peer takes it; returns early if the stream or connection is gone."""
        view, at, batch = memoryview(body), 0, 0
        while at < len(view) and self._is_open(stream_id):
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size, len(view) - at)
            if room <= 0 or batch >= _BATCH:
                batch = 0
                await self._until_writable(window=room <= 0)
                continue
            self._h2.send_data(stream_id, bytes(view[at : at + room]), end_stream=end and at + room == len(view))
            at, batch = at + room, batch + room

    def end(self, stream_id: int) -> None:
        if self._is_open(stream_id):
            self._h2.end_stream(stream_id)

    def reset(self, stream_id: int, *, polite: bool = False) -> None:
        """End a stream in both directions; `polite` where the answer is complete and only the rest is unwanted."""
        if self._is_open(stream_id):
            code = h2.errors.ErrorCodes.NO_ERROR if polite else h2.errors.ErrorCodes.CANCEL
            self._h2.reset_stream(stream_id, error_code=code)
            self.flush()

    def flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Send what is queued and a GOAWAY, then close. May be repeated."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._h2.state_machine.state is not h2.connection.ConnectionState.CLOSED:
            self._h2.close_connection()
        self.flush()
        if self._transport.get_write_buffer_size() and not self._may_write.is_set():
            self._transport.abort()  # the peer reads nothing: it will not read the GOAWAY either
        else:
            self._transport.close()

    def _is_open(self, stream_id: int) -> bool:
        if self.is_closing or self._h2.state_machine.state is h2.connection.ConnectionState.CLOSED:
            return False
        stream = self._h2.streams.get(stream_id)
        return stream is not None and not stream.closed

    async def _until_writable(self, *, window: bool) -> None:
        """Send what is queued; wait until the peer reads or, for `window`, until it may have opened one."""
        self.flush()
        if not self._may_write.is_set():
            await self._may_write.wait()
        elif window and not self.is_closing:
            self._window.clear()
            await self._window.wait()
        else:
            await asyncio.sleep(0)  # a large reply lets the other calls run

    def _dispatch(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self._side.on_data(event.stream_id, event.data or b"")
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                self._side.on_headers(event.stream_id, _text(event.headers), trailers=False)
            case h2.events.TrailersReceived():
                self._side.on_headers(event.stream_id, _text(event.headers), trailers=True)
            case h2.events.StreamEnded():
                self._side.on_end(event.stream_id)
            case h2.events.StreamReset():
                self._window.set()
                self._side.on_reset(event.stream_id)
                self._count_reset()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.set()
            case h2.events.ConnectionTerminated():
                self.close()
            case _:
                pass  # priorities, pings (h2 answers them) and frames of later versions

    def _count_reset(self) -> None:
        now = asyncio.get_running_loop().time()
        self._resets.append(now)
        if len(self._resets) == RESETS and now - self._resets[0] < RESETS_IN_S and not self._is_client:
            log.warning("closing a connection that resets its calls", resets=RESETS, seconds=RESETS_IN_S)
            self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self.close()


def _text(headers: Iterable[tuple[bytes | str, bytes | str]] | None) -> Headers:
    """Headers as h2 decoded them under `header_encoding`: text."""
    return cast(Headers, list(headers or ()))
