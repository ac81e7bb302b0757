"""A SPDY session as a script: bytes in, events and bytes out; what hostile peers send; any bytes in any split."""

import random
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.wire import spdy_frames as frames
from criollo.wire.spdy import SpdySession, StreamRefused
from criollo.wire.spdy_events import Event, Failed, Leaving, Opened, Ponged, Received, Replied, RoomMade, WasReset
from criollo.wire.spdy_frames import FIN, UNIDIRECTIONAL, Farewell, FrameKind, Reset, Setting
from criollo.wire.spdy_headers import Deflater
from criollo.wire.spdy_windows import DEFAULT_WINDOW, SESSION_WINDOW, SLACK, STREAM_WINDOW


class Peer:
    """A client that says what it is told to, to a server's session."""

    def __init__(self, *, max_streams: int = 10) -> None:
        self.session = SpdySession(is_client=False, max_streams=max_streams)
        self.deflater = Deflater()
        self.now = 0.0

    def syn(self, stream_id: int, flags: int = 0, **headers: str) -> bytes:
        return frames.syn_stream(stream_id, self.deflater.block(headers), flags)

    def says(self, *octets: bytes) -> list[Event]:
        self.session.receive(b"".join(octets), self.now)
        return list(events(self.session))

    def hears(self) -> list[tuple[int | None, bytes]]:
        return list(parsed(self.session.take_output()))


def events(session: SpdySession) -> Iterator[Event]:
    while session.has_input:
        event = session.step()
        if event is not None:
            yield event


def parsed(octets: bytes) -> Iterator[tuple[int | None, bytes]]:
    while octets:
        head = frames.read_head(octets)
        yield head.kind, octets[8 : 8 + head.length]
        octets = octets[8 + head.length :]


def payload(stream_id: int, octets: bytes, flags: int = 0) -> bytes:
    return frames.payload_head(stream_id, len(octets), flags) + octets


def reset_of(stream_id: int, status: Reset) -> tuple[int, bytes]:
    return FrameKind.RST_STREAM, struct.pack(">II", stream_id, status)


def goaway_of(stream_id: int, status: Farewell) -> tuple[int, bytes]:
    return FrameKind.GOAWAY, struct.pack(">II", stream_id, status)


def test_stream_from_its_opening_to_its_end() -> None:
    peer = Peer()
    assert peer.says(peer.syn(1, streamtype="data")) == [Opened(1, {"streamtype": "data"}, False)]
    peer.session.reply(1)
    peer.session.reply(1)
    assert [kind for kind, _ in peer.hears()] == [FrameKind.SYN_REPLY]
    assert peer.says(payload(1, b"abc"), payload(1, b"", FIN)) == [Received(1, b"abc", False), Received(1, b"", True)]
    assert peer.session.payload(1, 5) == frames.payload_head(1, 5)
    peer.session.finish(1)
    peer.session.finish(1)
    assert peer.hears() == [(None, b"")]
    assert not peer.session.is_open(1)


def test_server_says_nothing_before_its_client() -> None:
    assert Peer().hears() == []


def test_client_and_server_understand_each_other() -> None:
    client, server = SpdySession(is_client=True, max_streams=0), SpdySession(is_client=False, max_streams=1)
    stream_id = client.open({"a": "b"})
    server.receive(client.take_output(), 0)
    assert Opened(1, {"a": "b"}, False) in list(events(server))
    server.reply(stream_id)
    client.receive(server.take_output(), 0)
    assert list(events(client)) == [RoomMade(0), RoomMade(0), Replied(1, {":status": "200", ":version": "HTTP/1.1"}, False)]
    assert client.has_flow
    assert server.has_flow
    assert client.room(1) == server.room(1) == STREAM_WINDOW


def test_peer_may_open_only_so_many_streams_at_a_time() -> None:
    peer = Peer(max_streams=2)
    assert len(peer.says(peer.syn(1), peer.syn(3), peer.syn(5))) == 2
    assert peer.hears() == [reset_of(5, Reset.REFUSED_STREAM)]
    peer.session.reset(3)
    assert peer.says(peer.syn(7)) == [Opened(7, {}, False)]


def test_streams_without_end_are_a_flood() -> None:
    peer = Peer(max_streams=10)
    told = peer.says(*(peer.syn(1 + 2 * n) for n in range(100_000)))
    assert [type(event) for event in told] == [Opened] * 10 + [Failed]
    assert peer.hears()[-1][0] == FrameKind.GOAWAY


def test_stream_opened_and_reset_again_and_again_is_a_flood() -> None:
    peer = Peer()
    told = peer.says(*(peer.syn(1 + 2 * n) + frames.reset(1 + 2 * n, Reset.CANCEL) for n in range(2000)))
    assert isinstance(told[-1], Failed)


def test_stream_that_was_taken_may_be_reset_as_often_as_one_likes() -> None:
    peer = Peer()
    for n in range(5000):
        peer.says(peer.syn(1 + 2 * n))
        peer.session.reply(1 + 2 * n)
        assert isinstance(peer.says(frames.reset(1 + 2 * n, Reset.CANCEL))[0], WasReset)


@pytest.mark.parametrize("stream_id", [0, 2, 1 << 30, frames.MAX_ID - 1])
def test_stream_id_that_no_client_has_ends_the_session(stream_id: int) -> None:
    peer = Peer()
    assert isinstance(peer.says(peer.syn(stream_id))[0], Failed)
    assert peer.hears() == [goaway_of(0, Farewell.PROTOCOL_ERROR)]


@pytest.mark.parametrize("stream_id", [5, 3, 1])
def test_reused_or_smaller_stream_id_ends_the_session(stream_id: int) -> None:
    peer = Peer()
    assert isinstance(peer.says(peer.syn(5), peer.syn(stream_id))[-1], Failed)


def test_failed_session_takes_nothing_more_and_says_nothing_more() -> None:
    peer = Peer()
    peer.says(peer.syn(0))
    peer.hears()
    assert peer.says(peer.syn(1), frames.ping(1)) == []
    assert peer.hears() == []


def test_forbidden_headers_reset_the_stream_and_no_other() -> None:
    peer = Peer()
    block = peer.deflater._zlib.compress(struct.pack(">II", 1, 0) + struct.pack(">I", 0)) + peer.deflater._zlib.flush(2)
    assert peer.says(frames.syn_stream(1, block), peer.syn(3, a="b")) == [Opened(3, {"a": "b"}, False)]
    assert peer.hears() == [reset_of(1, Reset.PROTOCOL_ERROR)]


BAD_FRAMES: dict[str, Callable[[], bytes]] = {
    "version 2": lambda: struct.pack(">HHI", 0x8002, FrameKind.PING, 4) + bytes(4),
    "unknown version": lambda: struct.pack(">HHI", 0xFFFF, 0xFFFF, 0xFFFFFFFF),
    "SYN_STREAM too short": lambda: frames.control(FrameKind.SYN_STREAM, bytes(9)),
    "SYN_STREAM of 16 MiB": lambda: struct.pack(">HHI", 0x8003, FrameKind.SYN_STREAM, frames.MAX_PAYLOAD),
    "SYN_STREAM without headers": lambda: frames.syn_stream(1, b""),
    "SYN_REPLY too short": lambda: frames.control(FrameKind.SYN_REPLY, bytes(3)),
    "HEADERS not deflated": lambda: frames.with_headers(FrameKind.HEADERS, 1, b"xxxx"),
    "reset too short": lambda: frames.control(FrameKind.RST_STREAM, bytes(7)),
    "reset of stream 0": lambda: frames.reset(0, Reset.CANCEL),
    "settings with 2³² entries": lambda: frames.control(FrameKind.SETTINGS, struct.pack(">I", 0xFFFFFFFF)),
    "settings with a huge window": lambda: frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}),
    "ping too short": lambda: frames.control(FrameKind.PING, b""),
    "ping too long": lambda: frames.control(FrameKind.PING, bytes(5)),
    "goaway too short": lambda: frames.control(FrameKind.GOAWAY, bytes(4)),
    "window update too short": lambda: frames.control(FrameKind.WINDOW_UPDATE, bytes(4)),
    "session window raised by 0": lambda: frames.window_update(0, 0),
    "session window negative": lambda: frames.window_update(0, 1 << 31),
    "session window overflow": lambda: frames.window_update(0, frames.MAX_WINDOW),
    "payload on stream 0": lambda: payload(0, b"x"),
    "all zeros": lambda: bytes(8),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_frame_that_the_protocol_does_not_have_ends_the_session(name: str) -> None:
    peer = Peer()
    told = peer.says(BAD_FRAMES[name]())
    assert [type(event) for event in told] == [Failed]
    assert peer.hears()[-1] == goaway_of(0, Farewell.PROTOCOL_ERROR)


def test_unknown_frames_are_stepped_over() -> None:
    peer = Peer()
    other = frames.control(10, bytes(100_000)) + frames.control(0xF000, b"\0\0\0\1x") + frames.control(5, b"")
    assert peer.says(other, peer.syn(1)) == [Opened(1, {}, False)]


@pytest.mark.parametrize(
    "frame",
    [
        frames.ping(1),
        frames.settings({}),
        frames.reset(1, Reset.CANCEL),
        frames.control(0xF000, b""),
        frames.goaway(0, Farewell.OK),
        payload(99, b""),
    ],
)
def test_flood_of_frames_ends_the_session(frame: bytes) -> None:
    peer = Peer()
    assert isinstance(peer.says(*[frame] * 2000)[-1], Failed)


def test_pings_now_and_then_are_answered_for_ever() -> None:
    peer = Peer()
    for n in range(3000):
        peer.now = n * 0.02
        assert peer.says(frames.ping(2 * n + 1)) == []
        assert peer.hears() == [(FrameKind.PING, struct.pack(">I", 2 * n + 1))]


def test_own_ping_is_recognised() -> None:
    peer = Peer()
    ping_id = peer.session.ping()
    assert peer.says(frames.ping(ping_id)) == [Ponged(ping_id)]
    assert len(peer.hears()) == 1


def test_payload_after_its_end_resets_the_stream() -> None:
    peer = Peer()
    peer.says(peer.syn(1, FIN))
    assert peer.says(payload(1, b"x")) == [WasReset(1, "payload after its end")]
    assert peer.hears() == [reset_of(1, Reset.STREAM_ALREADY_CLOSED)]


def test_second_end_resets_the_stream() -> None:
    peer = Peer()
    peer.says(peer.syn(1), payload(1, b"", FIN))
    assert [type(event) for event in peer.says(payload(1, b"", FIN))] == [WasReset]


def test_payload_for_a_stream_that_was_reset_is_dropped() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    peer.session.reset(1)
    peer.hears()
    assert peer.says(payload(1, b"on its way"), payload(1, b"", FIN)) == []
    assert peer.hears() == []


def test_payload_for_a_stream_that_never_was_is_told() -> None:
    peer = Peer()
    peer.says(payload(9, b"x"))
    assert peer.hears() == [reset_of(9, Reset.INVALID_STREAM)]


def test_stream_that_the_peer_forgot_after_its_end_may_still_bring_that_end() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    peer.session.reply(1)
    peer.session.finish(1)
    assert peer.says(frames.reset(1, Reset.INVALID_STREAM), payload(1, b"late", FIN)) == [Received(1, b"late", True)]


def test_stream_is_no_place_to_send_on_when_it_is_unidirectional() -> None:
    peer = Peer()
    peer.says(peer.syn(1, UNIDIRECTIONAL))
    assert peer.session.room(1) == 0


def test_stream_over_before_it_began() -> None:
    peer = Peer(max_streams=1)
    assert peer.says(peer.syn(1, UNIDIRECTIONAL | FIN)) == [Opened(1, {}, True)]
    peer.session.reply(1)
    assert not peer.session.is_open(1)
    assert peer.hears() == []


def test_reply_to_a_stream_of_the_peers_own_resets_it() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    told = peer.says(frames.with_headers(FrameKind.SYN_REPLY, 1, peer.deflater.block({})))
    assert [type(event) for event in told] == [WasReset]


def test_further_headers_may_end_a_stream() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    further = frames.with_headers(FrameKind.HEADERS, 1, peer.deflater.block({"x": "y"}), FIN)
    assert peer.says(further) == [Received(1, b"", True)]


def test_goodbye_of_the_peer() -> None:
    peer = Peer()
    assert peer.says(frames.goaway(0, Farewell.OK), peer.syn(1)) == [Leaving(0)]
    with pytest.raises(StreamRefused):
        peer.session.open({})


def test_own_goodbye_resets_what_is_open() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    peer.session.leave()
    assert peer.hears() == [reset_of(1, Reset.CANCEL), goaway_of(1, Farewell.OK)]
    assert peer.says(peer.syn(3)) == []
    assert peer.hears() == [reset_of(3, Reset.REFUSED_STREAM)]


def test_session_that_takes_no_more_refuses() -> None:
    peer = Peer()
    peer.session.take_no_more()
    assert peer.says(peer.syn(1)) == []
    assert peer.hears() == [reset_of(1, Reset.REFUSED_STREAM)]


def test_peers_limit_of_streams_is_kept() -> None:
    client = SpdySession(is_client=True, max_streams=0)
    client.receive(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 1}), 0)
    list(events(client))
    client.open({})
    with pytest.raises(StreamRefused):
        client.open({})


# Flow control: docs/decisions/0006-spdy-flow-control.md


def test_peer_without_flow_control_is_sent_and_may_send_any_amount() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    for _ in range(40):
        peer.session.payload(1, 1 << 20)
        assert len(peer.says(payload(1, bytes(1 << 20)))) == 1
        peer.session.used_up(1, 1 << 20)
    assert peer.hears() == []


@pytest.mark.parametrize("sign", [frames.settings({}), frames.window_update(0, 1)])
def test_peer_that_shows_flow_control_gets_it(sign: bytes) -> None:
    peer = Peer()
    peer.says(sign, peer.syn(1))
    heard = peer.hears()
    assert heard[0] == (FrameKind.SETTINGS, struct.pack(">III", 1, 7, STREAM_WINDOW))
    assert heard[1] == (FrameKind.WINDOW_UPDATE, struct.pack(">II", 0, SESSION_WINDOW - DEFAULT_WINDOW))
    assert peer.session.room(1) == DEFAULT_WINDOW


def test_window_that_is_used_up_stops_the_stream_until_it_is_raised() -> None:
    peer = Peer()
    peer.says(frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}), peer.syn(1))
    peer.session.payload(1, 100)
    assert peer.session.room(1) == 0
    assert peer.says(frames.window_update(1, 30)) == [RoomMade(1)]
    assert peer.session.room(1) == 30
    assert peer.says(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0})) == [RoomMade(0)]
    assert peer.session.room(1) == 0


def test_session_window_stops_all_streams() -> None:
    peer = Peer()
    peer.says(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}), peer.syn(1), peer.syn(3))
    peer.session.payload(1, DEFAULT_WINDOW)
    assert not peer.session.has_room
    assert peer.session.room(3) == 0
    assert peer.says(frames.window_update(0, 10)) == [RoomMade(0)]
    assert peer.session.room(3) == 10


def test_stream_window_overflow_resets_the_stream() -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    assert [type(event) for event in peer.says(frames.window_update(1, frames.MAX_WINDOW))] == [WasReset]
    assert reset_of(1, Reset.FLOW_CONTROL_ERROR) in peer.hears()


@pytest.mark.parametrize("delta", [0, 1 << 31, 0xFFFFFFFF])
def test_stream_window_raised_by_nothing_resets_the_stream(delta: int) -> None:
    peer = Peer()
    peer.says(peer.syn(1))
    assert [type(event) for event in peer.says(frames.window_update(1, delta))] == [WasReset]


def test_settings_that_make_a_window_overflow_end_the_session() -> None:
    peer = Peer()
    peer.says(peer.syn(1), frames.window_update(1, 1 << 30))
    assert isinstance(peer.says(frames.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}))[-1], Failed)


def test_more_than_the_streams_window_resets_it() -> None:
    peer = Peer()
    peer.says(frames.settings({}), peer.syn(1))
    peer.hears()
    peer.says(payload(1, bytes(STREAM_WINDOW + SLACK)))
    assert peer.session.is_open(1)
    told = peer.says(payload(1, b"x"))
    assert told == [WasReset(1, "more payload than its window allows")]


def test_more_than_the_sessions_window_ends_it() -> None:
    peer = Peer(max_streams=20)
    peer.says(frames.settings({}), *(peer.syn(1 + 2 * n) for n in range(20)))
    told = peer.says(*(payload(1 + 2 * n, bytes(STREAM_WINDOW)) for n in range(20)))
    assert isinstance(told[-1], Failed)
    assert sum(len(event.octets) for event in told if isinstance(event, Received)) <= SESSION_WINDOW + SLACK


def test_what_is_used_up_is_given_back_by_halves() -> None:
    peer = Peer()
    peer.says(frames.settings({}), peer.syn(1))
    peer.hears()
    for _ in range(64):
        peer.says(payload(1, bytes(STREAM_WINDOW // 4)))
        peer.session.used_up(1, STREAM_WINDOW // 4)
    heard = peer.hears()
    assert heard.count((FrameKind.WINDOW_UPDATE, struct.pack(">II", 1, STREAM_WINDOW // 2))) == 32
    assert heard.count((FrameKind.WINDOW_UPDATE, struct.pack(">II", 0, SESSION_WINDOW // 2))) == 4


def test_what_was_used_before_flow_control_showed_is_given_back_then() -> None:
    peer = Peer()
    peer.says(peer.syn(1), payload(1, bytes(50_000)))
    peer.session.used_up(1, 50_000)
    peer.says(frames.window_update(1, 1))
    assert (FrameKind.WINDOW_UPDATE, struct.pack(">II", 1, 50_000)) in peer.hears()


def test_dropped_payload_is_given_back_to_the_session() -> None:
    peer = Peer()
    peer.says(frames.settings({}), peer.syn(1))
    peer.session.reset(1)
    peer.hears()
    for _ in range(40):
        peer.says(payload(1, bytes(1 << 20)))
    assert len(peer.hears()) == 40 * (1 << 20) // (SESSION_WINDOW // 2)


# Any bytes in any pieces.


def conversation(peer: Peer) -> bytes:
    return b"".join(
        [
            frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 18}),
            peer.syn(1, streamtype="error"),
            peer.syn(3, streamtype="data", port="80"),
            payload(3, b"hello"),
            frames.ping(1),
            frames.window_update(3, 100),
            frames.window_update(0, 100),
            frames.control(0xF000, b"some extension"),
            frames.with_headers(FrameKind.HEADERS, 3, peer.deflater.block({"x": "y"})),
            payload(3, b"", FIN),
            payload(1, b"end", FIN),
            frames.reset(1, Reset.CANCEL),
            peer.syn(5, FIN),
            frames.goaway(0, Farewell.OK),
        ]
    )


def joined(told: list[Event]) -> list[Event]:
    """With pieces of payload put together again."""
    result: list[Event] = []
    for event in told:
        last = result[-1] if result else None
        if (
            isinstance(event, Received)
            and isinstance(last, Received)
            and (last.stream_id, last.is_last) == (event.stream_id, False)
        ):
            result[-1] = Received(last.stream_id, last.octets + event.octets, event.is_last)
        else:
            result.append(event)
    return result


@given(st.lists(st.integers(0, 700), max_size=30))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    whole = Peer()
    expected = joined(whole.says(conversation(whole)))
    split = Peer()
    octets, told, start = conversation(split), [], 0
    for cut in [*sorted(cuts), len(octets)]:
        told += split.says(octets[start:cut])
        start = max(start, cut)
    assert joined(told) == expected
    assert split.hears() == whole.hears()


def test_byte_by_byte_gives_the_same_events() -> None:
    whole, single = Peer(), Peer()
    expected = joined(whole.says(conversation(whole)))
    told = [event for octet in conversation(single) for event in single.says(bytes((octet,)))]
    assert joined(told) == expected


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_events_or_a_clean_end(octets: bytes, step: int) -> None:
    survive(Peer(), [octets[at : at + step] for at in range(0, len(octets), step)])


@settings(max_examples=400)
@given(st.integers(0, 1 << 32), st.booleans())
def test_damaged_conversation_is_events_or_a_clean_end(seed: int, is_client: bool) -> None:
    chance = random.Random(seed)
    peer = Peer()
    octets = bytearray(conversation(peer))
    for _ in range(chance.randint(1, 6)):
        match chance.randrange(4):
            case 0:
                octets[chance.randrange(len(octets))] = chance.randrange(256)
            case 1:
                at = chance.randrange(len(octets))
                del octets[at : at + chance.randrange(20)]
            case 2:
                at = chance.randrange(len(octets))
                octets[at:at] = chance.randbytes(chance.randrange(20))
            case _:
                at = chance.randrange(len(octets))
                octets += octets[at : at + 50]
    if is_client:
        peer.session = SpdySession(is_client=True, max_streams=1)
        peer.session.open({})
    survive(peer, [bytes(octets)])


def survive(peer: Peer, pieces: list[bytes]) -> None:
    """Feed the session; each step makes progress, and what it keeps and says is bounded."""
    fed = 0
    for octets in pieces:
        fed += len(octets)
        peer.session.receive(octets, peer.now)
        steps = 0
        while peer.session.has_input:
            event = peer.session.step()
            steps += 1
            assert steps <= len(octets) + 1
            if isinstance(event, Received):
                assert len(event.octets) <= fed
    assert len(peer.session.take_output()) <= 200 + 4 * fed
    assert len(peer.session._intake._held) <= fed
