"""Messages of channels, taken apart and put together."""

import base64
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.wire import channels
from criollo.wire.channels import ChannelEnded, Chunk, Demux, Resizes
from criollo.wire.websocket import Broken

RAW = channels.subprotocol("v4.channel.k8s.io")
V5 = channels.subprotocol("v5.channel.k8s.io")
BASE64 = channels.subprotocol("v4.base64.channel.k8s.io")


def read(kind: channels.Subprotocol, *messages: bytes, wanted: Sequence[int] = (0, 4)) -> list[Chunk | ChannelEnded]:
    """What whole messages say to a server."""
    demux = Demux(kind, channels.EXEC_CHANNELS, wanted)
    return [event for message in messages for event in demux.receive(message, ends=True)]


def read_in_parts(kind: channels.Subprotocol, message: bytes, size: int) -> list[Chunk | ChannelEnded]:
    """What one message says that comes in parts of `size` bytes."""
    demux, starts = Demux(kind, channels.EXEC_CHANNELS, {0, 4}), range(0, len(message), size)
    parts = [(message[start : start + size], start == starts[-1]) for start in starts]
    return [event for part, ends in parts for event in demux.receive(part, ends=ends)]


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ([], ""),
        (["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"], "v5.channel.k8s.io"),
        (["v4.channel.k8s.io", "v5.channel.k8s.io"], "v4.channel.k8s.io"),
        (["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"], "channel.k8s.io"),
        (["chat", "v4.base64.channel.k8s.io"], "v4.base64.channel.k8s.io"),
    ],
)
def test_first_known_of_the_clients_subprotocols_is_taken(offered: list[str], expected: str) -> None:
    assert channels.choose(offered, channels.EXEC) == expected


def test_nothing_in_common_is_refused_with_what_there_is() -> None:
    with pytest.raises(Invalid, match=r"chat.*v5\.channel\.k8s\.io"):
        channels.choose(["chat", "V5.CHANNEL.K8S.IO"], channels.EXEC)


def test_tunnel_and_channels_of_port_forward() -> None:
    known = channels.TUNNEL + channels.FORWARD
    assert channels.choose(["SPDY/3.1+portforward.k8s.io"], known) == "SPDY/3.1+portforward.k8s.io"
    assert channels.choose(["v2.portforward.k8s.io", "v4.channel.k8s.io"], known) == "v2.portforward.k8s.io"
    assert channels.choose([], known) == ""
    with pytest.raises(Invalid):
        channels.choose(["v5.channel.k8s.io"], known)


def test_status_is_json_from_version_4_on() -> None:
    assert {name: channels.subprotocol(name).version for name in channels.EXEC} == {
        "": 1,
        "channel.k8s.io": 1,
        "v4.channel.k8s.io": 4,
        "v5.channel.k8s.io": 5,
        "base64.channel.k8s.io": 1,
        "v4.base64.channel.k8s.io": 4,
    }


def test_raw_message_is_channel_and_bytes() -> None:
    assert read(RAW, b"\0hello") == [Chunk(0, b"hello", ends=True)]


def test_base64_message_is_character_and_base64() -> None:
    assert read(BASE64, b"0aGVsbG8=", b"4e30=") == [Chunk(0, b"hello", ends=True), Chunk(4, b"{}", ends=True)]


def test_empty_messages_unknown_and_unwanted_channels_are_passed_over() -> None:
    assert read(RAW, b"", b"\5x", b"\1x", b"\3x", b"\xffx", b"\0") == [Chunk(0, b"", ends=True)]
    assert read(BASE64, b"", b"9eA==", b"1eA==", b"\0eA==", b"/!", b"1!!!!") == []


def test_message_in_parts_is_handed_on_in_parts() -> None:
    demux = Demux(RAW, 5, {0})
    found = [
        list(demux.receive(part, ends=ends)) for part, ends in [(b"", False), (b"\0", False), (b"ab", False), (b"c", True)]
    ]
    assert found == [[], [], [Chunk(0, b"ab", ends=False)], [Chunk(0, b"c", ends=True)]]
    assert list(demux.receive(b"\0d", ends=True)) == [Chunk(0, b"d", ends=True)]


@given(st.binary(max_size=100), st.lists(st.integers(0, 200), max_size=6), st.sampled_from([RAW, V5, BASE64]))
def test_any_split_of_a_message_gives_its_bytes(payload: bytes, cuts: list[int], kind: channels.Subprotocol) -> None:
    message = b"".join(channels.message(kind, 0, payload))
    places = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    demux, found = Demux(kind, 5, {0}), []
    for start, end in itertools.pairwise(places):
        found += demux.receive(message[start:end], ends=False)
    found += demux.receive(b"", ends=True)
    assert b"".join(chunk.payload for chunk in found if isinstance(chunk, Chunk)) == payload


def test_end_of_a_channel_may_come_twice_and_for_any_that_exists() -> None:
    assert read(V5, b"\xff\0", b"\xff\0", b"\xff\3", b"\xff\4") == [
        ChannelEnded(0),
        ChannelEnded(0),
        ChannelEnded(3),
        ChannelEnded(4),
    ]


def test_end_of_a_channel_in_parts() -> None:
    demux = Demux(V5, 5, {0})
    assert list(demux.receive(b"\xff", ends=False)) == []
    assert list(demux.receive(b"\0", ends=False)) == []
    assert list(demux.receive(b"", ends=True)) == [ChannelEnded(0)]


@pytest.mark.parametrize("message", [b"\xff", b"\xff\5", b"\xff\xff", b"\xff\0\0", b"\xff" * 100_000])
def test_end_of_no_channel_ends_the_session(message: bytes) -> None:
    with pytest.raises(Broken) as caught:
        read(V5, message)
    assert caught.value.code == 1002


def test_endless_end_of_a_channel_is_not_collected() -> None:
    demux = Demux(V5, 5, {0})
    list(demux.receive(b"\xff\0", ends=False))
    with pytest.raises(Broken):
        list(demux.receive(b"\0", ends=False))


def test_before_version_5_byte_255_is_an_unknown_channel() -> None:
    assert read(RAW, b"\xff\0", b"\xff\xff", b"\xff") == []


MALFORMED = [b"!", b"a", b"aG", b"aGk", b"aGk=aGk=", b"=", b"====", b"aGk==", b"aGk=\n=", b"_-_-", b"aGk=a", b"a\0Gk"]


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_malformed_base64_ends_the_session(text: bytes, size: int) -> None:
    with pytest.raises(Broken) as caught:
        read_in_parts(BASE64, b"0" + text, size)
    assert caught.value.code == 1007


def test_line_ends_in_base64_are_passed_over() -> None:
    assert read(BASE64, b"0aGVs\r\nbG8=\n") == [Chunk(0, b"hello", ends=True)]


@given(st.lists(st.tuples(st.binary(max_size=12), st.booleans()), max_size=20), st.sampled_from([RAW, V5, BASE64]))
def test_junk_is_chunks_or_broken(parts: list[tuple[bytes, bool]], kind: channels.Subprotocol) -> None:
    demux = Demux(kind, 5, {0, 4})
    codes = []
    try:
        for part, ends in parts:
            for event in demux.receive(part, ends=ends):
                assert event.channel in ({0, 4} if isinstance(event, Chunk) else range(5))
    except Broken as broken:
        codes.append(broken.code)
    assert codes in ([], [1002], [1007])


def test_message_of_each_kind() -> None:
    assert b"".join(channels.message(RAW, 1, b"hi")) == b"\1hi"
    assert b"".join(channels.message(BASE64, 1, b"hi")) == b"1" + base64.b64encode(b"hi")


def test_ports_have_channels_that_their_first_byte_can_name() -> None:
    assert channels.max_ports(RAW) == 128
    most = channels.max_ports(BASE64)
    assert b"".join(channels.message(BASE64, 2 * most - 1, b"")).isascii()


def test_size_may_come_in_parts_and_after_a_bad_one() -> None:
    resizes = Resizes()
    with pytest.raises(ValueError, match="no JSON"):
        resizes.receive(Chunk(4, b"junk", ends=True))
    assert resizes.receive(Chunk(4, b'{"Width":80,', ends=False)) is None
    assert resizes.receive(Chunk(4, b'"Height":24}', ends=True)) == (24, 80)
    assert resizes.receive(Chunk(4, b"", ends=True)) is None


def test_endless_size_is_not_collected() -> None:
    resizes = Resizes()
    for _ in range(100):
        assert resizes.receive(Chunk(4, b" " * 1000, ends=False)) is None
    with pytest.raises(ValueError, match="over 1024 bytes"):
        resizes.receive(Chunk(4, b"{}", ends=True))
