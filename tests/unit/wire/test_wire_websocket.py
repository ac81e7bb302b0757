"""The handshake's headers and frames, against wsproto as the other side."""

import itertools
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from criollo.errors import Invalid, Unsupported
from criollo.wire import websocket
from criollo.wire.websocket import Broken, Closed, Event, Frames, Part, Ping

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
REQUEST = {
    "upgrade": "websocket",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


def masked(first: int, payload: bytes, *, size: bytes | None = None, mask: bytes = b"\1\2\3\4") -> bytes:
    """A client's frame by hand; `size` says another length than it has."""
    body = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return bytes((first,)) + (size or bytes((0x80 | len(payload),))) + mask + body


def events(wire: bytes, *, frames: Frames | None = None) -> list[Event]:
    """What a server makes of bytes."""
    return list((frames or Frames()).receive(wire))


def whole(parts: Sequence[Event]) -> bytes:
    """The bytes of all messages."""
    return b"".join(part.payload for part in parts if isinstance(part, Part))


def pieces(wire: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The bytes, cut."""
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    return (wire[start:end] for start, end in itertools.pairwise(places))


def test_answer_to_a_key_is_the_standards_example() -> None:
    assert websocket.accept_value(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_switching_names_the_subprotocol_only_if_one_was_chosen() -> None:
    assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n" in websocket.switching_head(KEY, "v5.channel.k8s.io")
    head = websocket.switching_head(KEY, "")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Protocol:" not in head
    assert head.endswith(b"\r\n\r\n")


def test_handshake_key() -> None:
    assert websocket.handshake_key("GET", REQUEST) == KEY


@pytest.mark.parametrize(
    "key", ["", "short", "dGhlIHNhbXBsZQ==", KEY + KEY, "dGhlIHNhbXBsZSBub25jZQ", "é" * 24, KEY[:-2] + "\r\n"]
)
def test_bad_key_is_refused(key: str) -> None:
    with pytest.raises(Invalid, match="Sec-WebSocket-Key"):
        websocket.handshake_key("GET", REQUEST | {"sec-websocket-key": key})


def test_other_method_is_refused() -> None:
    with pytest.raises(Invalid, match="GET"):
        websocket.handshake_key("POST", REQUEST)


@pytest.mark.parametrize("version", ["", "8", "12, 13", "13.0"])
def test_other_version_is_refused(version: str) -> None:
    with pytest.raises(Unsupported, match="version 13"):
        websocket.handshake_key("GET", REQUEST | {"sec-websocket-version": version})


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", []), ("a", ["a"]), (" a ,b,, c ", ["a", "b", "c"]), (",", [])],
)
def test_subprotocols_are_in_the_clients_order(header: str, expected: list[str]) -> None:
    assert websocket.subprotocols({"sec-websocket-protocol": header}) == expected


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 300_000])
def test_our_frames_are_read_by_wsproto(size: int, is_client: bool) -> None:
    peer, payload = FrameProtocol(client=not is_client, extensions=[]), bytes(n % 251 for n in range(size))
    peer.receive_bytes(Frames(is_client=is_client).message(payload, prefix=b"!"))
    (frame,) = peer.received_frames()
    assert (frame.opcode, frame.payload, frame.message_finished) == (Opcode.BINARY, b"!" + payload, True)


def test_text_frames_are_text() -> None:
    peer = FrameProtocol(client=True, extensions=[])
    peer.receive_bytes(Frames().message(b"aGk=", prefix=b"1", is_text=True))
    assert [frame.payload for frame in peer.received_frames()] == ["1aGk="]


@pytest.mark.parametrize("is_client", [False, True])
def test_control_frames_are_read_by_wsproto(is_client: bool) -> None:
    ours, peer = Frames(is_client=is_client), FrameProtocol(client=not is_client, extensions=[])
    peer.receive_bytes(ours.ping() + ours.pong(b"x" * 125) + ours.close(1002, "é" * 200))
    ping, pong, close = peer.received_frames()
    assert (ping.opcode, pong.opcode, pong.payload) == (Opcode.PING, Opcode.PONG, b"x" * 125)
    code, reason = close.payload
    assert code == 1002
    assert reason == "é" * 61, "cut at a whole character"


def test_close_without_a_code_is_empty() -> None:
    assert Frames().close(websocket.NO_CODE) == b"\x88\x00"


@given(
    st.lists(st.one_of(st.binary(max_size=70_000), st.text(max_size=50)), max_size=4),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_any_split_gives_the_same_messages(messages: list[bytes | str], cuts: list[int]) -> None:
    peer, ours = FrameProtocol(client=True, extensions=[]), Frames()
    wire = b"".join(bytes(peer.send_data(message)) for message in messages)
    found: list[tuple[bytes, bool]] = []
    begun = b""
    for piece in pieces(wire, cuts):
        for event in ours.receive(piece):
            assert isinstance(event, Part)
            begun += event.payload
            if event.ends:
                found.append((begun, event.is_text))
                begun = b""
    assert begun == b""
    assert found == [(m.encode(), True) if isinstance(m, str) else (m, False) for m in messages]


def test_fragments_are_handed_on_as_they_come() -> None:
    frames, endless = Frames(), bytearray()
    for n in range(1000):
        for event in frames.receive(masked(0x02 if n == 0 else 0x00, b"abc")):
            assert isinstance(event, Part)
            assert not event.ends
            endless += event.payload
    assert endless == b"abc" * 1000


def test_ping_between_fragments_is_told_in_order() -> None:
    wire = masked(0x02, b"a") + masked(0x89, b"p") + masked(0x80, b"b")
    assert events(wire) == [Part(b"a", ends=False), Ping(b"p"), Part(b"b")]


def test_frame_that_says_it_is_enormous_takes_no_memory() -> None:
    frames = Frames()
    size = b"\xff" + struct.pack("!Q", (1 << 63) - 1)
    assert events(masked(0x82, b"begin", size=size), frames=frames) == [Part(b"begin", ends=False)]
    assert events(b"\0" * 100, frames=frames)[0] == Part(bytes((2, 3, 4, 1) * 25), ends=False)


BROKEN = {
    "unmasked": (b"\x82\x01a", 1002),
    "reserved bit 1": (masked(0xC2, b"a"), 1002),
    "reserved bit 3": (masked(0x92, b"a"), 1002),
    "unknown opcode": (masked(0x83, b"a"), 1002),
    "unknown control opcode": (masked(0x8B, b"a"), 1002),
    "length 2^63": (masked(0x82, b"", size=b"\xff" + struct.pack("!Q", 1 << 63)), 1002),
    "length in more bytes than needed": (masked(0x82, b"a", size=b"\xfe\x00\x01"), 1002),
    "long length in more bytes than needed": (masked(0x82, b"a", size=b"\xff" + struct.pack("!Q", 200)), 1002),
    "ping of 126 bytes": (masked(0x89, b"a" * 126, size=b"\xfe\x00\x7e"), 1002),
    "close of 2^16 bytes": (masked(0x88, b"", size=b"\xff" + struct.pack("!Q", 1 << 16)), 1002),
    "fragmented ping": (masked(0x09, b"a"), 1002),
    "fragmented close": (masked(0x08, b"\x03\xe8"), 1002),
    "continuation without a start": (masked(0x80, b"a"), 1002),
    "second start": (masked(0x02, b"a") + masked(0x82, b"b"), 1002),
    "close with half a code": (masked(0x88, b"\x03"), 1002),
    "close with code 999": (masked(0x88, struct.pack("!H", 999)), 1002),
    "close with code 1005": (masked(0x88, struct.pack("!H", 1005)), 1002),
    "close with code 1006": (masked(0x88, struct.pack("!H", 1006)), 1002),
    "close with code 2999": (masked(0x88, struct.pack("!H", 2999)), 1002),
    "close with code 5000": (masked(0x88, struct.pack("!H", 5000)), 1002),
    "close with a reason that is no text": (masked(0x88, b"\x03\xe8\xff"), 1007),
    "text that is none": (masked(0x81, b"a\xff"), 1007),
    "text that is cut": (masked(0x81, "é".encode()[:1]), 1007),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frames_are_refused_with_a_code(name: str) -> None:
    wire, code = BROKEN[name]
    frames = Frames()
    with pytest.raises(Broken) as caught:
        events(wire, frames=frames)
    assert caught.value.code == code
    assert caught.value.reason
    assert events(masked(0x82, b"more"), frames=frames) == [], "nothing is read after it"


def test_client_refuses_masked_frames() -> None:
    with pytest.raises(Broken):
        events(masked(0x82, b"a"), frames=Frames(is_client=True))


def test_what_follows_a_close_is_not_read() -> None:
    frames = Frames()
    assert events(masked(0x88, b"\x03\xe8bye") + masked(0x82, b"a"), frames=frames) == [Closed(1000, "bye")]
    assert events(b"\xff" * 100, frames=frames) == []
    assert events(masked(0x88, b"")) == [Closed(1005, "")]


@given(st.lists(st.binary(max_size=40), max_size=20), st.booleans())
def test_junk_is_events_or_broken(junk: list[bytes], is_client: bool) -> None:
    frames, found, codes = Frames(is_client=is_client), [], []
    try:
        for piece in junk:
            found += frames.receive(piece)
    except Broken as broken:
        codes.append(broken.code)
    assert codes in ([], [1002], [1007])
    assert len(whole(found)) <= sum(map(len, junk))
