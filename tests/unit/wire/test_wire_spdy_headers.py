"""Header blocks: through one zlib stream per direction, bounded before they are looked at."""

import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire import spdy_headers
from criollo.wire.spdy_frames import Broken
from criollo.wire.spdy_headers import DICTIONARY, MAX_BLOCK, MAX_HEADERS, Deflater, Inflater, Unacceptable

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Lu", "Lt", "Cs"]), min_size=1, max_size=8).filter(
    lambda name: name == name.lower()
)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def text(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def plain(*pairs: tuple[bytes, bytes], count: int | None = None) -> bytes:
    return struct.pack(">I", len(pairs) if count is None else count) + b"".join(text(n) + text(v) for n, v in pairs)


def deflated(octets: bytes, dictionary: bytes = DICTIONARY) -> bytes:
    packer = zlib.compressobj(9, zdict=dictionary)
    return packer.compress(octets) + packer.flush(zlib.Z_SYNC_FLUSH)


def test_dictionary_is_the_one_of_the_draft() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), max_size=4))
def test_blocks_are_read_as_written(blocks: list[dict[str, str]]) -> None:
    deflater, inflater = Deflater(), Inflater()
    for block in blocks:
        assert inflater.block(deflater.block(block)) == block


def test_names_are_sent_in_lower_case() -> None:
    assert Inflater().block(Deflater().block({"streamType": "stdin"})) == {"streamtype": "stdin"}


def test_several_values_are_joined() -> None:
    assert Inflater().block(deflated(plain((b"a", b"1\x002")))) == {"a": "1, 2"}


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0\0\0",
        plain(count=1),
        plain(count=0x80000000),
        plain((b"a", b"b"), count=2),
        plain((b"a", b"b"), count=0),
        plain((b"a", b"b")) + b"x",
        plain((b"a", b"b"))[:-1],
        struct.pack(">II", 1, 0xFFFFFFFF) + b"a" * 20,
        struct.pack(">II", 1, 1) + b"a" + struct.pack(">I", 0x7FFFFFFF),
    ],
)
def test_counts_and_lengths_beyond_the_block_are_broken(octets: bytes) -> None:
    with pytest.raises(Broken):
        Inflater().block(deflated(octets))


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"", b"x")],
        [(b"a", b"1"), (b"a", b"2")],
        [(b"streamType", b"stdin")],
        [(b"\xff", b"x")],
        [(b"a", b"\xff")],
        [(b"n%d" % n, b"") for n in range(MAX_HEADERS + 1)],
    ],
)
def test_forbidden_headers_cost_the_stream_and_not_the_session(pairs: list[tuple[bytes, bytes]]) -> None:
    packer = zlib.compressobj(zdict=DICTIONARY)
    inflater = Inflater()
    with pytest.raises(Unacceptable):
        inflater.block(packer.compress(plain(*pairs)) + packer.flush(zlib.Z_SYNC_FLUSH))
    assert inflater.block(packer.compress(plain((b"a", b"b"))) + packer.flush(zlib.Z_SYNC_FLUSH)) == {"a": "b"}


def test_biggest_block_that_is_taken() -> None:
    room = MAX_BLOCK - 4 - 8 - 1
    assert Inflater().block(deflated(plain((b"a", b"x" * room)))) == {"a": "x" * room}
    with pytest.raises(Broken):
        Inflater().block(deflated(plain((b"a", b"x" * (room + 1)))))


def test_bomb_is_not_inflated() -> None:
    bomb = deflated(bytes(16 << 20))
    inflater = Inflater()
    tracemalloc.start()
    try:
        with pytest.raises(Broken):
            inflater.block(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "octets",
    [
        b"not zlib",
        deflated(plain((b"a", b"b")), b"another dictionary"),
        zlib.compress(plain((b"a", b"b"))),  # ends the stream
        deflated(plain((b"a", b"b")))[:6] * 3,  # asks for the dictionary again and again
        b"\0" * 64,
    ],
)
def test_another_compressed_stream_is_broken(octets: bytes) -> None:
    with pytest.raises(Broken):
        Inflater().block(octets)


@given(st.binary(max_size=200), st.booleans())
def test_any_block_is_read_or_refused(octets: bytes, is_deflated: bool) -> None:
    try:
        headers = Inflater().block(deflated(octets) if is_deflated else octets)
    except (Broken, Unacceptable):
        return
    assert len(headers) <= spdy_headers.MAX_HEADERS
