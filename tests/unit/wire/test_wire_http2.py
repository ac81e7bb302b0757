"""The session, with its sender and its blocks: beside `h2`, split at any place, and against peers that break rules."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.wire import http2_frames as frames
from criollo.wire.hpack import encode
from criollo.wire.http2 import CONNECTION_WINDOW, HEADER_LIST_BYTES, STREAM_WINDOW, Http2Session
from criollo.wire.http2_events import Body, Event, Failed, GoneAway, Head, Reset
from criollo.wire.http2_floods import IDLE_FRAMES, RESETS
from criollo.wire.http2_frames import ErrorCode, FrameReader, frame

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/s/m"), (":authority", "localhost"), ("te", "trailers")]
RESPONSE = encode([(":status", "200")])
TRAILERS = encode([("grpc-status", "0")])
BLOCK = encode(REQUEST)
HEADERS, DATA, RST = frames.HEADERS, frames.DATA, frames.RST_STREAM
WHOLE = frames.END_HEADERS
END = frames.END_STREAM
EMPTY_SETTINGS = frame(frames.SETTINGS, 0, 0)
HELLO = frames.PREFACE + EMPTY_SETTINGS


def peer(*, client: bool) -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=client, header_encoding="latin-1")
    made = h2.connection.H2Connection(config)
    made.initiate_connection()
    return made


def served(*parts: bytes) -> tuple[list[Event], bytes]:
    """What a server says to a client that sends these bytes after its preface and settings."""
    session = Http2Session(client=False)
    session.take(0)
    events = session.receive(HELLO + b"".join(parts), 0)
    return events, session.take(0)


def sent(data: bytes, kind: int) -> list[bytes]:
    return [each.payload for each in FrameReader().frames(data) if each.kind == kind]


def head(stream_id: int, block: bytes = BLOCK, flags: int = WHOLE) -> bytes:
    return frame(HEADERS, flags, stream_id, block)


def exchange(client: Any, session: Http2Session, *, limit: int = 1 << 20) -> tuple[list[Event], list[Any]]:
    """Let an h2 client and our server talk until both have nothing to say."""
    ours: list[Event] = []
    theirs: list[Any] = []
    while True:
        there = client.data_to_send()
        ours += session.receive(there, 0) if there else []
        back = session.take(limit)
        theirs += client.receive_data(back) if back else []
        if not there and not back:
            return ours, theirs


# With the library as the other side


def test_call_of_the_library_is_heard_and_answered() -> None:
    client, session = peer(client=True), Http2Session(client=False)
    client.send_headers(1, REQUEST)
    client.send_data(1, b"hello", end_stream=True, pad_length=3)
    heard, _ = exchange(client, session)
    assert heard == [Head(1, tuple(REQUEST), False, False), Body(1, b"hello", True)]
    session.send_head(1, RESPONSE)
    session.send_body(1, b"world")
    session.send_head(1, TRAILERS, end=True)
    _, answered = exchange(client, session)
    kinds = [type(event).__name__ for event in answered]
    assert kinds == ["ResponseReceived", "DataReceived", "TrailersReceived", "StreamEnded"]
    assert session.open_streams == 0


def test_call_of_ours_is_heard_and_answered_by_the_library() -> None:
    session, server = Http2Session(client=True), peer(client=False)
    stream_id = session.open(BLOCK)
    assert stream_id == 1
    session.send_body(stream_id, b"hello", end=True)
    session.receive(server.data_to_send(), 0)
    heard = server.receive_data(session.take(1 << 20))
    assert [type(event).__name__ for event in heard if getattr(event, "stream_id", 0)] == [
        *["RequestReceived", "DataReceived", "StreamEnded"],
    ]
    server.send_headers(1, [(":status", "103"), ("x", "y")])
    server.send_headers(1, [(":status", "200")])
    server.send_data(1, b"world")
    server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    told = session.receive(server.data_to_send(), 0)
    assert told == [
        Head(1, ((":status", "200"),), False, False),
        Body(1, b"world", False),
        Head(1, (("grpc-status", "0"),), True, True),
    ]
    assert session.open_streams == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300_000), st.integers(0, 200_000), st.sampled_from([1 << 14, 1 << 15, 1 << 20]))
def test_reply_of_any_size_passes_through_any_window(size: int, window: int, most: int) -> None:
    client, session = peer(client=True), Http2Session(client=False)
    client.update_settings(
        {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window, h2.settings.SettingCodes.MAX_FRAME_SIZE: most}
    )
    client.send_headers(1, REQUEST, end_stream=True)
    exchange(client, session)
    body = bytes(range(256)) * (size // 256 + 1)
    session.send_head(1, RESPONSE)
    session.send_body(1, body[:size])
    session.send_head(1, TRAILERS, end=True)
    got, steps = b"", 0
    while session.waits(1) or steps == 0:
        for event in exchange(client, session)[1]:
            if isinstance(event, h2.events.DataReceived):
                got += event.data or b""
        if session.waits(1):
            client.increment_flow_control_window(50_000, 1)
            client.increment_flow_control_window(50_000)
        steps += 1
    exchange(client, session)
    assert got == body[:size]
    assert session.open_streams == 0


def test_large_request_is_credited_so_that_it_never_stops() -> None:
    client, session = peer(client=True), Http2Session(client=False)
    exchange(client, session)
    client.send_headers(1, REQUEST)
    heard = 0
    for _ in range(20 << 20 >> 14):
        assert client.local_flow_control_window(1) >= 1 << 14
        client.send_data(1, b"x" * (1 << 14))
        heard += sum(len(event.payload) for event in exchange(client, session)[0] if isinstance(event, Body))
    assert heard == 20 << 20


def test_streams_that_wait_take_turns_and_leave_small_replies_through() -> None:
    client, session = peer(client=True), Http2Session(client=False)
    for number in (1, 3, 5):
        client.send_headers(number, REQUEST, end_stream=True)
    exchange(client, session)
    for number, size in ((1, 40_000), (3, 40_000), (5, 10)):
        session.send_head(number, RESPONSE)
        session.send_body(number, b"x" * size)
        session.send_head(number, TRAILERS, end=True)
    assert not session.waits(5)
    order = [each.stream_id for each in FrameReader().frames(session.take(1 << 20)) if each.kind == DATA]
    assert order == [5, 1, 3, 1, 3, 1][: len(order)]
    assert session.waits(3)  # the connection's window of 65535 is used up


def test_smaller_window_set_while_a_reply_is_sent_may_be_negative_and_is_obeyed() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO + head(1, flags=WHOLE | END), 0)
    session.send_head(1, RESPONSE)
    session.send_body(1, b"x" * 30_000)
    session.take(1 << 20)
    session.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: 100}), 0)
    session.send_body(1, b"y" * 10)
    assert not sent(session.take(1 << 20), DATA)
    session.receive(frames.window_update(1, 30_000 - 100 + 4), 0)
    assert sent(session.take(1 << 20), DATA) == [b"yyyy"]


def test_peer_that_wants_no_table_is_told_that_we_use_none() -> None:
    session = Http2Session(client=False)
    session.receive(frames.PREFACE + frames.settings({frames.HEADER_TABLE_SIZE: 0}) + head(1), 0)
    session.send_head(1, RESPONSE)
    session.send_head(1, TRAILERS, end=True)
    assert sent(session.take(0), HEADERS) == [b"\x20" + RESPONSE, TRAILERS]


def test_trailers_and_resets_pass_both_ways() -> None:
    client, session = peer(client=True), Http2Session(client=False)
    client.send_headers(1, REQUEST)
    client.send_headers(1, [("x", "y")], end_stream=True)
    client.send_headers(3, REQUEST)
    client.reset_stream(3, 8)
    heard, _ = exchange(client, session)
    assert heard[1] == Head(1, (("x", "y"),), True, True)
    assert heard[-1] == Reset(3, 8)
    session.reset(1, ErrorCode.CANCEL)
    session.reset(1, ErrorCode.CANCEL)
    _, told = exchange(client, session)
    assert [(event.stream_id, event.error_code) for event in told if isinstance(event, h2.events.StreamReset)] == [(1, 8)]


def test_reset_drops_what_waits() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO + head(1, flags=WHOLE | END), 0)
    session.send_head(1, RESPONSE)
    session.send_body(1, b"x" * 1_000_000)
    session.take(1 << 20)
    assert session.waits(1)
    session.receive(frames.reset(1, ErrorCode.CANCEL) + frames.window_update(0, 1 << 20), 0)
    assert not session.waits(1)
    assert not sent(session.take(1 << 20), DATA)


def test_what_still_comes_on_a_stream_we_reset_is_passed_over() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO + head(1), 0)
    session.reset(1, ErrorCode.NO_ERROR)
    more = frame(DATA, 0, 1, b"x" * 100) + head(1, encode([("late", "1")]), WHOLE | END) + frames.window_update(1, 5)
    assert session.receive(more, 0) == []
    assert not session.is_closed


def test_goaway_of_the_server_fails_calls_it_has_not_seen_and_forbids_new_ones() -> None:
    session = Http2Session(client=True)
    session.receive(EMPTY_SETTINGS, 0)
    assert [session.open(BLOCK), session.open(BLOCK)] == [1, 3]
    told = session.receive(frames.goaway(1, ErrorCode.NO_ERROR, "bye"), 0)
    assert told == [Reset(3, ErrorCode.REFUSED_STREAM), GoneAway(0, "bye")]
    assert session.open(BLOCK) is None
    assert session.open_streams == 1


def test_client_opens_no_more_streams_than_the_server_takes() -> None:
    session = Http2Session(client=True)
    session.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 2}), 0)
    assert [session.open(BLOCK) for _ in range(3)] == [1, 3, None]


def test_long_block_is_sent_in_pieces_that_the_library_joins() -> None:
    client, session = peer(client=True), Http2Session(client=False)
    client.send_headers(1, REQUEST, end_stream=True)
    exchange(client, session)
    session.send_head(1, encode([(":status", "200"), ("x", "y" * 40_000)]), end=True)
    _, told = exchange(client, session)
    assert any(isinstance(event, h2.events.ResponseReceived) and dict(event.headers)["x"] == "y" * 40_000 for event in told)


# Any split


@st.composite
def conversations(draw: Callable[..., Any]) -> bytes:
    """Bytes of a client that calls, pads, pings, resets and sends trailers."""
    client = peer(client=True)
    for number in range(1, 2 * draw(st.integers(0, 6)) + 1, 2):
        extra = draw(st.lists(st.tuples(st.sampled_from(["a", "grpc-timeout"]), st.text("abc0", max_size=9)), max_size=3))
        client.send_headers(number, [*REQUEST, *extra])
        for body in draw(st.lists(st.binary(max_size=60), max_size=3)):
            client.send_data(number, body, pad_length=draw(st.none() | st.integers(0, 20)))
        match draw(st.integers(0, 4)):
            case 0:
                client.end_stream(number)
            case 1:
                client.send_headers(number, [("x", "y")], end_stream=True)
            case 2:
                client.reset_stream(number)
            case 3:
                client.ping(b"12345678")
            case _:
                client.prioritize(number, weight=5)
    return client.data_to_send()


def told(chunks: list[bytes]) -> tuple[list[Event], bytes, int]:
    session = Http2Session(client=False)
    events = [event for chunk in chunks for event in session.receive(chunk, 0)]
    return events, session.take(1 << 20), session.open_streams


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:stop] for start, stop in pairwise(places)]


@settings(max_examples=80, deadline=None)
@given(
    conversations(),
    st.lists(st.integers(0, 1 << 20), max_size=12),
    st.none() | st.tuples(st.integers(0, 1 << 20), st.binary(max_size=5)),
)
def test_every_split_gives_the_same_events_and_answers(data: bytes, at: list[int], damage: tuple[int, bytes] | None) -> None:
    if damage:
        place = damage[0] % (len(data) + 1)
        data = data[:place] + damage[1] + data[place + len(damage[1]) :]
    whole = told([data])
    assert told(cut(data, at)) == whole
    assert told([data[place : place + 1] for place in range(len(data))]) == whole


# Any bytes

PIECES = st.binary(max_size=60) | st.builds(
    frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.integers(0, 9) | st.just(0x7FFFFFFF),
    st.sampled_from([b"", BLOCK, TRAILERS, b"\0\0\0\0", b"\0\0\0\x01", b"\x7f\xff\xff\xff", b"12345678"])
    | st.binary(max_size=12),
)


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.booleans(), st.lists(PIECES, max_size=30))
def test_any_bytes_end_in_events_or_in_one_failure(client: bool, greeted: bool, pieces: list[bytes]) -> None:
    session = Http2Session(client=client)
    if client:
        session.open(BLOCK)
    events: list[Event] = []
    for piece in ([EMPTY_SETTINGS if client else HELLO] if greeted else []) + pieces:
        events += session.receive(piece, 0)
    failures = [event for event in events if isinstance(event, Failed)]
    out = session.take(1 << 20).removeprefix(frames.PREFACE)
    assert failures in ([], events[-1:])
    assert len(sent(out, frames.GOAWAY)) == len(failures) == session.is_closed
    assert session.open_streams <= 250


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=15))
def test_what_the_library_takes_for_a_request_we_do_too(pieces: list[bytes]) -> None:
    server, session = peer(client=False), Http2Session(client=False)
    theirs: list[tuple[int, bytes]] = []
    try:
        for piece in [HELLO, *pieces]:
            for event in server.receive_data(piece):
                if isinstance(event, h2.events.DataReceived) and event.data:
                    theirs.append((event.stream_id, event.data))
    except (h2.exceptions.ProtocolError, ValueError):
        return  # the other way round is not promised: it forbids a little more, and a little less
    events = [event for piece in [HELLO, *pieces] for event in session.receive(piece, 0)]
    if not session.is_closed:
        ours = [(event.stream_id, event.payload) for event in events if isinstance(event, Body) and event.payload]
        assert ours == theirs


# Peers that break rules

BAD_HEAD = encode([*REQUEST, ("connection", "close")])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
        (frame(DATA, 0, 1, b"x"), "PROTOCOL_ERROR"),  # of a stream that nobody opened
        (head(1) + frame(DATA, frames.PADDED, 1, b""), "FRAME_SIZE_ERROR"),
        (head(1) + frame(DATA, frames.PADDED, 1, b"\x05abcd"), "PROTOCOL_ERROR"),
        (head(1, b"\x00", WHOLE | frames.HAS_PRIORITY), "FRAME_SIZE_ERROR"),
        (head(0), "PROTOCOL_ERROR"),
        (head(2), "PROTOCOL_ERROR"),
        (head(1, b"\xff\xff\xff"), "COMPRESSION_ERROR"),
        (head(5) + frames.reset(5, ErrorCode.CANCEL) + head(3), "STREAM_CLOSED"),  # numbers only grow
        (head(1) + frames.reset(1, ErrorCode.CANCEL) + frame(DATA, 0, 1, b"x"), "STREAM_CLOSED"),
        (frame(HEADERS, 0, 1, BLOCK) + frame(DATA, 0, 1, b"x"), "PROTOCOL_ERROR"),  # a block is interrupted
        (frame(HEADERS, 0, 1, BLOCK) + frame(frames.CONTINUATION, 4, 3, b""), "PROTOCOL_ERROR"),
        (frame(frames.CONTINUATION, 4, 1, b""), "PROTOCOL_ERROR"),
        (frame(HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1, b"") * 70, "ENHANCE_YOUR_CALM"),
        (frame(HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1, b"\x88" * 16384) * 5, "ENHANCE_YOUR_CALM"),
        (frame(HEADERS, WHOLE, 1, b"\x82" * 2000), "ENHANCE_YOUR_CALM"),  # 42 bytes each
        (frame(frames.PRIORITY, 0, 0, b"12345"), "PROTOCOL_ERROR"),
        (frame(RST, 0, 1, b"\0\0\0\x08"), "PROTOCOL_ERROR"),
        (frame(RST, 0, 0, b"\0\0\0\x08"), "PROTOCOL_ERROR"),
        (head(1) + frame(RST, 0, 1, b"\0\0\x08"), "FRAME_SIZE_ERROR"),
        (frame(frames.SETTINGS, 0, 1), "PROTOCOL_ERROR"),
        (frame(frames.SETTINGS, 0, 0, b"12345"), "FRAME_SIZE_ERROR"),
        (frame(frames.SETTINGS, frames.ACK, 0, b"123456"), "FRAME_SIZE_ERROR"),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}), "FLOW_CONTROL_ERROR"),
        (frames.settings({frames.MAX_FRAME_SIZE: 100}), "PROTOCOL_ERROR"),
        (frames.settings({frames.MAX_FRAME_SIZE: 1 << 24}), "PROTOCOL_ERROR"),
        (frames.settings({frames.ENABLE_PUSH: 2}), "PROTOCOL_ERROR"),
        (frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\x02"), "PROTOCOL_ERROR"),
        (frame(frames.PING, 0, 0, b"1234567"), "FRAME_SIZE_ERROR"),
        (frame(frames.PING, 0, 1, b"12345678"), "PROTOCOL_ERROR"),
        (frame(frames.GOAWAY, 0, 1, b"12345678"), "PROTOCOL_ERROR"),
        (frame(frames.GOAWAY, 0, 0, b"1234567"), "FRAME_SIZE_ERROR"),
        (frames.window_update(0, 0), "PROTOCOL_ERROR"),
        (frames.window_update(0, (1 << 31) - 1), "FLOW_CONTROL_ERROR"),
        (frames.window_update(1, 1), "PROTOCOL_ERROR"),
        (head(1) + frame(frames.WINDOW_UPDATE, 0, 1, b"123"), "FRAME_SIZE_ERROR"),
        (
            head(1) + frames.window_update(1, (1 << 31) - 1 - 65535) + frames.settings({frames.INITIAL_WINDOW_SIZE: 65536}),
            "FLOW_CONTROL_ERROR",
        ),
        (b"\0\x40\x01\0\0\0\0\0\x01", "FRAME_SIZE_ERROR"),  # a frame of 16385 bytes
    ],
)
def test_broken_rule_of_the_connection_ends_it_with_its_code(data: bytes, code: str) -> None:
    events, out = served(data)
    assert isinstance(events[-1], Failed)
    assert events[-1].code.name == code
    assert [int.from_bytes(payload[4:8], "big") for payload in sent(out, frames.GOAWAY)] == [ErrorCode[code]]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (head(1, BAD_HEAD), "PROTOCOL_ERROR"),
        (head(1, encode(REQUEST[:2])), "PROTOCOL_ERROR"),
        (head(1) + head(1, TRAILERS), "PROTOCOL_ERROR"),  # trailers that end nothing
        (head(1) + head(1, BLOCK, WHOLE | END), "PROTOCOL_ERROR"),  # trailers with pseudo fields
        (head(1, flags=WHOLE | END) + frame(DATA, 0, 1, b"x"), "STREAM_CLOSED"),
        (head(1, flags=WHOLE | END) + head(1, TRAILERS, WHOLE | END), "STREAM_CLOSED"),
        (head(1) + frames.window_update(1, 0), "PROTOCOL_ERROR"),
        (head(1) + frames.window_update(1, (1 << 31) - 1), "FLOW_CONTROL_ERROR"),
        (head(1) + frame(frames.PRIORITY, 0, 1, b"1234"), "FRAME_SIZE_ERROR"),
        (head(1, encode([*REQUEST, ("content-length", "3")])) + frame(DATA, END, 1, b"ab"), "PROTOCOL_ERROR"),
        (head(1, encode([*REQUEST, ("content-length", "3")])) + frame(DATA, 0, 1, b"abcd"), "PROTOCOL_ERROR"),
        (head(1, encode([*REQUEST, ("content-length", "3")]), WHOLE | END), "PROTOCOL_ERROR"),
    ],
)
def test_broken_rule_of_a_stream_resets_it_alone(data: bytes, code: str) -> None:
    events, out = served(data, head(3, flags=WHOLE | END))
    assert sent(out, RST) == [ErrorCode[code].to_bytes(4, "big")]
    assert events[-1] == Head(3, tuple(REQUEST), False, True)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\r", frames.PREFACE + frame(6, 0, 0, b"x" * 8)]
)
def test_connection_that_begins_otherwise_is_ended(first: bytes) -> None:
    session = Http2Session(client=False)
    assert [type(event) for event in session.receive(first, 0)] == [Failed]
    assert session.receive(HELLO, 0) == []


def test_data_beyond_the_window_of_a_stream_resets_it() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO + head(1), 0)
    session._streams[1].left = 10
    assert session.receive(frame(DATA, 0, 1, b"x" * 11), 0) == [Reset(1, ErrorCode.FLOW_CONTROL_ERROR)]


def test_data_beyond_the_window_of_the_connection_ends_it() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO + head(1), 0)
    session._left = 10
    assert [type(event) for event in session.receive(frame(DATA, 0, 1, b"x" * 11), 0)] == [Failed]


@pytest.mark.parametrize(
    "data",
    [
        head(2, RESPONSE),  # streams of servers are pushed ones
        head(3, RESPONSE),
        frames.settings({frames.ENABLE_PUSH: 1}),
        frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\x02"),
    ],
)
def test_client_ends_a_connection_whose_server_breaks_its_rules(data: bytes) -> None:
    session = Http2Session(client=True)
    session.open(BLOCK)
    assert isinstance(session.receive(EMPTY_SETTINGS + data, 0)[-1], Failed)


@pytest.mark.parametrize(
    "data",
    [
        frame(DATA, 0, 1, b"x"),  # before any head
        head(1, TRAILERS),
        head(1, encode([(":status", "abc")])),
        head(1, encode([(":status", "103")]), WHOLE | END),
    ],
)
def test_client_resets_a_stream_whose_response_is_malformed(data: bytes) -> None:
    session = Http2Session(client=True)
    session.open(BLOCK)
    assert session.receive(EMPTY_SETTINGS + data, 0) == [Reset(1, ErrorCode.PROTOCOL_ERROR)]


# Floods


def test_resets_spread_over_time_are_allowed() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO, 0)
    for number in range(2 * RESETS):
        stream_id = 2 * number + 1
        events = session.receive(head(stream_id) + frames.reset(stream_id, ErrorCode.CANCEL), number * 0.011)
        assert events[-1] == Reset(stream_id, ErrorCode.CANCEL)
        session.take(0)


def test_as_many_resets_at_once_end_the_connection() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO, 0)
    data = b"".join(head(number) + frames.reset(number, ErrorCode.CANCEL) for number in range(1, 2 * RESETS + 3, 2))
    last = session.receive(data, 0)[-1]
    assert isinstance(last, Failed)
    assert last.code is ErrorCode.ENHANCE_YOUR_CALM


def test_pings_with_calls_are_allowed_and_without_end_the_connection() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO, 0)
    ping = frame(frames.PING, 0, 0, b"12345678")
    for number in range(1, 2 * IDLE_FRAMES // 5, 2):
        session.receive(head(number, flags=WHOLE | END) + ping * 8, 0)
        session.send_head(number, TRAILERS, end=True)
        session.take(0)
    assert not session.is_closed
    assert isinstance(session.receive(ping * (IDLE_FRAMES + 1), 0)[-1], Failed)


def test_what_is_kept_of_a_peer_is_bounded() -> None:
    session = Http2Session(client=False)
    session.receive(HELLO, 0)
    for number in range(1, 8001, 2):
        fields = encode([*REQUEST, (f"x-{number}", "y" * 100)])
        session.receive(head(number, fields), number)
        session.reset(number, ErrorCode.NO_ERROR)
        session.take(0)
    assert len(session._forgotten) <= 1000
    assert len(session._rules._good) <= 500
    assert len(session._blocks._decoder._kept) <= 32


def test_limits_are_announced() -> None:
    client, session = peer(client=True), Http2Session(client=False, streams=250)
    exchange(client, session)
    assert client.remote_settings.max_concurrent_streams == 250
    assert client.remote_settings.max_header_list_size == HEADER_LIST_BYTES
    client.send_headers(1, REQUEST)
    assert client.local_flow_control_window(1) == STREAM_WINDOW
    assert client.outbound_flow_control_window == CONNECTION_WINDOW
