"""HPACK beside the RFC's own examples and beside the library `hpack`."""

import hpack as peer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire.hpack import STATIC, BadBlock, Decoder, Field, TooLarge, encode

LIMIT = 1 << 16
FIRST = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
SECOND = [*FIRST, ("cache-control", "no-cache")]
THIRD = [
    *[(":method", "GET"), (":scheme", "https"), (":path", "/index.html")],
    *[(":authority", "www.example.com"), ("custom-key", "custom-value")],
]
MOVED = [
    *[(":status", "302"), ("cache-control", "private"), ("date", "Mon, 21 Oct 2013 20:13:21 GMT")],
    ("location", "https://www.example.com"),
]
MOVED_KEPT = [(":status", "307"), *MOVED[1:]]
WITH_COOKIE = [
    *[(":status", "200"), ("cache-control", "private"), ("date", "Mon, 21 Oct 2013 20:13:22 GMT")],
    *[("location", "https://www.example.com"), ("content-encoding", "gzip")],
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]
TABLE_OF_256 = "3fe101"  # the responses are written for a table of 256 bytes


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [[("custom-key", "custom-header")]]),
        (["040c2f73616d706c652f70617468"], [[(":path", "/sample/path")]]),
        (["100870617373776f726406736563726574"], [[("password", "secret")]]),
        (["82"], [[(":method", "GET")]]),
        (
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            [FIRST, SECOND, THIRD],
        ),
        (
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
            [FIRST, SECOND, THIRD],
        ),
        (
            [
                TABLE_OF_256 + "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
                "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                "4803333037c1c0bf",
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a"
                "584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
            ],
            [MOVED, MOVED_KEPT, WITH_COOKIE],
        ),
        (
            [
                TABLE_OF_256
                + "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8"
                "e9ae82ae43d3",
                "4883640effc1c0bf",
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f36"
                "72c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ],
            [MOVED, MOVED_KEPT, WITH_COOKIE],
        ),
    ],
)
def test_examples_of_the_standard(blocks: list[str], expected: list[list[Field]]) -> None:
    decoder = Decoder(list_bytes=LIMIT)
    assert [list(decoder.decode(bytes.fromhex(block))) for block in blocks] == expected


def test_static_table_is_that_of_the_standard() -> None:
    assert [(name.encode(), value.encode()) for name, value in STATIC] == list(peer.table.HeaderTable.STATIC_TABLE)


NAMES = st.sampled_from([":path", "grpc-timeout", "user-agent", "x"]) | st.text("abc-", min_size=1, max_size=12)
VALUES = st.sampled_from(["", "POST", "119999876u"]) | st.text(st.characters(max_codepoint=255), max_size=60)
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


@given(st.lists(st.tuples(LISTS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=12))
def test_whatever_an_encoder_with_table_and_huffman_writes_is_read(
    lists: list[tuple[list[Field], bool, int | None]],
) -> None:
    encoder, decoder = peer.Encoder(), Decoder(list_bytes=LIMIT)
    for fields, huffman, size in lists:
        if size is not None:
            encoder.header_table_size = size
        octets = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        assert list(decoder.decode(encoder.encode(octets, huffman=huffman))) == fields


@given(LISTS)
def test_whatever_we_write_is_read_and_leaves_the_readers_table_empty(fields: list[Field]) -> None:
    reader = peer.Decoder()
    read = [
        (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
        for name, value in reader.decode(encode(fields), raw=True)
    ]
    assert read == fields
    assert list(Decoder(list_bytes=LIMIT).decode(encode(fields))) == fields
    assert not reader.header_table.dynamic_entries


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_fields_or_refused_as_by_the_library(blocks: list[bytes]) -> None:
    ours, theirs = Decoder(list_bytes=LIMIT), peer.Decoder()
    for block in blocks:
        try:
            expected = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except (peer.HPACKError, UnicodeDecodeError):
            expected = None
        try:
            found = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in ours.decode(block)]
        except (BadBlock, TooLarge):
            return  # the library is laxer at a few places; what both read must be the same
        assert found == expected


def test_repeated_block_is_read_anew_when_the_table_has_changed() -> None:
    decoder = Decoder(list_bytes=LIMIT)
    decoder.decode(bytes.fromhex("4001610131"))  # a: 1 becomes field 62
    assert decoder.decode(b"\xbe") is decoder.decode(b"\xbe")
    decoder.decode(bytes.fromhex("4001620132"))
    assert decoder.decode(b"\xbe") == (("b", "2"),)


@pytest.mark.parametrize(
    "block",
    [
        "80",  # field 0
        "be",  # a field that the table does not have
        "ffffffffffffff",  # an integer without end
        "ffffffffff7f",  # and a large one
        "3fe21f",  # a table larger than allowed
        "8220",  # its size after a field
        "40",  # nothing after the first octet
        "400161",  # no value
        "40036162",  # a name that is cut
        "7f",  # an integer that is cut
        "008161",  # wrong padding of a coded name
        "0084ffffffff",  # the end mark in it
    ],
)
def test_malformed_block_is_refused(block: str) -> None:
    with pytest.raises(BadBlock):
        Decoder(list_bytes=LIMIT).decode(bytes.fromhex(block))


def test_list_over_the_limit_is_given_up() -> None:
    decoder = Decoder(list_bytes=1000)
    assert len(decoder.decode(b"\x82" * 23)) == 23  # 42 bytes each
    with pytest.raises(TooLarge):
        decoder.decode(b"\x82" * 24)


def test_announced_string_over_the_limit_is_given_up_before_it_comes() -> None:
    with pytest.raises(TooLarge):
        Decoder(list_bytes=1000).decode(b"\x00\x7f\xff\xff\x03")


def test_one_field_repeated_from_the_table_is_no_bomb() -> None:
    decoder = Decoder(list_bytes=LIMIT)
    decoder.decode(encode([]) + b"\x40\x01x" + b"\x7f\x81\x1e" + b"y" * 3968)
    with pytest.raises(TooLarge):
        decoder.decode(b"\xbe" * 60_000)
