"""What conmon's packets say."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from criollo.monitor.attach import STDERR, STDOUT, by_stream


def test_neighbours_of_one_stream_are_joined_in_order() -> None:
    packets = [b"\x02a", b"\x02b", b"\x03c", b"\x02d", b"\x02"]
    assert list(by_stream(packets)) == [(STDOUT, b"ab"), (STDERR, b"c"), (STDOUT, b"d")]


def test_unknown_streams_and_empty_packets_are_left_out() -> None:
    assert list(by_stream([b"", b"\x02a", b"\x07evil", b"\x00", b"\x02b", b"\xffx"])) == [(STDOUT, b"ab")]
    assert list(by_stream([b"\x01x"])) == []


@given(st.lists(st.binary(max_size=50), max_size=40))
def test_each_stream_is_whole_and_alternates(packets: list[bytes]) -> None:
    parts = list(by_stream(packets))
    for stream in (STDOUT, STDERR):
        wanted = b"".join(packet[1:] for packet in packets if packet[:1] == bytes([stream]))
        assert b"".join(data for which, data in parts if which == stream) == wanted
    assert all(one[0] != other[0] for one, other in itertools.pairwise(parts))
