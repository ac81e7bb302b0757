"""Frames cut out of bytes, and made."""

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire import http2_frames as frames
from criollo.wire.http2_frames import ErrorCode, Fault, FrameReader, frame

ANY = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 0x7FFFFFFF), st.binary(max_size=80))


@given(st.lists(ANY, max_size=6), st.integers(1, 30))
def test_frames_come_back_from_any_split(made: list[tuple[int, int, int, bytes]], size: int) -> None:
    data = b"".join(frame(*each) for each in made)
    reader = FrameReader()
    found = [each for start in range(0, len(data), size) for each in reader.frames(data[start : start + size])]
    assert [tuple(each) for each in found] == made


def test_too_long_frame_is_refused_by_its_head_after_those_before_it() -> None:
    found = []
    with pytest.raises(Fault, match="FRAME_SIZE_ERROR"):
        found.extend(FrameReader().frames(frame(6, 0, 0, b"12345678") + b"\0\x40\x01\0\0\0\0\0\x01"))
    reader = FrameReader()
    assert len(list(reader.frames(frame(6, 0, 0, b"12345678")))) == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (frame(frames.DATA, 1, 5, b"abc"), DataFrame(5, data=b"abc", flags=["END_STREAM"])),
        (frames.reset(7, ErrorCode.CANCEL), RstStreamFrame(7, error_code=8)),
        (frames.settings({4: 1 << 20, 2: 0}), SettingsFrame(0, settings={4: 1 << 20, 2: 0})),
        (frames.window_update(3, 70_000), WindowUpdateFrame(3, window_increment=70_000)),
        (
            frames.goaway(9, ErrorCode.ENHANCE_YOUR_CALM, "x"),
            GoAwayFrame(0, last_stream_id=9, error_code=11, additional_data=b"x"),
        ),
    ],
)
def test_frames_are_as_the_library_makes_them(ours: bytes, theirs: Frame) -> None:
    assert ours == theirs.serialize()


@given(st.binary(max_size=40), st.integers(0, 40))
def test_padding_is_taken_off(body: bytes, padding: int) -> None:
    padded = frames.Frame(frames.DATA, frames.PADDED, 1, bytes((padding,)) + body + bytes(padding))
    assert frames.unpadded(padded) == body


def test_priority_within_headers_is_taken_off() -> None:
    found = frames.Frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY, 1, b"\x02" + b"12345" + b"block" + b"\0\0")
    assert frames.unpadded(found) == b"block"


def test_reserved_bits_are_ignored() -> None:
    assert next(FrameReader().frames(b"\0\0\0\x06\0\x80\0\0\x01")).stream_id == 1
    assert frames.number_of(frames.Frame(frames.WINDOW_UPDATE, 0, 1, b"\x80\0\0\x01")) == 1
