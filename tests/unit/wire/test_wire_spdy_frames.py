"""Frames as bytes: what is written is read, and lengths and counts are compared before they are used."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire import spdy_frames as frames
from criollo.wire.spdy_frames import Broken, Farewell, FrameKind, Head, Reset, Setting

IDS = st.integers(0, frames.MAX_ID)


@given(IDS, st.integers(0, 255), st.integers(0, frames.MAX_PAYLOAD))
def test_head_of_payload_is_read_as_written(stream_id: int, flags: int, size: int) -> None:
    assert frames.read_head(frames.payload_head(stream_id, size, flags)) == Head(None, stream_id, flags, size)


@given(st.sampled_from(FrameKind), st.integers(0, 255), st.binary(max_size=20))
def test_head_of_a_control_frame_is_read_as_written(kind: FrameKind, flags: int, payload: bytes) -> None:
    frame = frames.control(kind, payload, flags)
    assert frames.read_head(frame) == Head(kind, 0, flags, len(payload))
    assert frame[frames.HEAD_BYTES :] == payload


@pytest.mark.parametrize("version", [0, 1, 2, 4, 0x7FFF])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(Broken):
        frames.read_head(struct.pack(">HHI", 0x8000 | version, FrameKind.PING, 4))


@given(IDS, st.sampled_from(Reset), IDS)
def test_fixed_parts_are_read_as_written(stream_id: int, status: Reset, number: int) -> None:
    body = frames.HEAD_BYTES
    assert frames.read_reset(frames.reset(stream_id, status)[body:]) == (stream_id, status)
    assert frames.read_window_update(frames.window_update(stream_id, number)[body:]) == (stream_id, number)
    assert frames.read_goaway(frames.goaway(stream_id, Farewell.OK)[body:]) == (stream_id, 0)
    assert frames.read_ping(frames.ping(number)[body:]) == number
    assert frames.read_syn_stream(frames.syn_stream(stream_id, b"x")[body:]).stream_id == stream_id
    assert frames.read_stream_id(frames.with_headers(FrameKind.SYN_REPLY, stream_id, b"x")[body:]) == stream_id


def test_text_after_a_reset_is_left_alone() -> None:
    assert frames.read_reset(frames.reset(7, Reset.CANCEL)[8:] + b"why") == (7, 5)


def test_settings_are_read_as_written_and_the_last_of_a_kind_counts() -> None:
    values = {Setting.INITIAL_WINDOW_SIZE: 1 << 20, Setting.MAX_CONCURRENT_STREAMS: 10}
    assert frames.read_settings(frames.settings(values)[8:]) == values
    assert frames.read_settings(struct.pack(">IIIII", 2, 0x01000007, 1, 7, 2)) == {7: 2}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\0",
        struct.pack(">I", 1),
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 1) + bytes(7),
        struct.pack(">I", 1) + bytes(9),
        struct.pack(">I", 0) + bytes(8),
        struct.pack(">I", frames.MAX_SETTINGS + 1) + bytes(8 * (frames.MAX_SETTINGS + 1)),
    ],
)
def test_settings_whose_count_does_not_fit_are_broken(payload: bytes) -> None:
    with pytest.raises(Broken):
        frames.read_settings(payload)


def test_most_settings_that_are_taken() -> None:
    count = frames.MAX_SETTINGS
    pairs = b"".join(struct.pack(">II", n, n) for n in range(count))
    assert len(frames.read_settings(struct.pack(">I", count) + pairs)) == count


@pytest.mark.parametrize(
    "read",
    [
        frames.read_syn_stream,
        frames.read_stream_id,
        frames.read_reset,
        frames.read_settings,
        frames.read_ping,
        frames.read_goaway,
        frames.read_window_update,
    ],
)
@given(payload=st.binary(max_size=40))
def test_any_payload_is_read_or_broken(read: object, payload: bytes) -> None:
    assert callable(read)
    try:
        read(payload)
    except Broken:
        pass
    else:
        assert len(payload) >= 4
