"""Huffman coded strings, beside the library `hpack`."""

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire.hpack_huffman import LENGTHS, BadCode, decode

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def test_lengths_are_those_of_the_standard() -> None:
    assert list(LENGTHS) == list(REQUEST_CODES_LENGTH)


@given(st.binary(max_size=300) | st.text(st.characters(min_codepoint=32, max_codepoint=126)).map(str.encode))
def test_every_string_is_read_back(octets: bytes) -> None:
    assert decode(ENCODER.encode(octets)) == octets


@given(st.binary(max_size=200))
def test_any_bytes_have_one_reading_or_none(coded: bytes) -> None:
    try:
        octets = decode(coded)
    except BadCode:
        return
    assert ENCODER.encode(octets) == coded


@pytest.mark.parametrize("coded", [b"\xff", b"\xff" * 4, b"\x1f\xff", b"\xff\xff\xff\xfc", b"\x18"])
def test_end_mark_and_wrong_padding_are_refused(coded: bytes) -> None:
    with pytest.raises(BadCode):
        decode(coded)


def test_long_string_takes_time_in_proportion() -> None:
    octets = b"\x0a~z" * 20_000
    assert decode(ENCODER.encode(octets)) == octets
