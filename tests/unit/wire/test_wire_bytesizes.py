"""Numbers of bytes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire.bytesizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *(("0", 0), ("1", 1), ("4096", 4096), ("1k", 1 << 10), ("1K", 1 << 10), ("10GiB", 10 << 30), ("10 GB", 10 << 30)),
        *(("512m", 512 << 20), ("1.5g", 3 << 29), ("0.25T", 1 << 38), ("2P", 2 << 50), ("7b", 7), ("1.999k", 2046)),
    ],
)
def test_units_are_powers_of_1024(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", " 1", "-1", "1x", "1..5g", "1.", ".5g", "1e3", "²", "٣", "1\ng", "1gg", "1\u212a", "12MiB\n", "12 Mi B"]
)
def test_other_shapes_are_none(text: str) -> None:
    assert parse_bytes(text) is None


@given(st.text(max_size=30) | st.text("0123456789.kMGib ", max_size=30))
def test_any_text_is_a_number_or_none(text: str) -> None:
    found = parse_bytes(text)
    assert found is None or found >= 0


@given(st.integers(min_value=0, max_value=10**19 - 1))
def test_plain_numbers_are_themselves(number: int) -> None:
    assert parse_bytes(str(number)) == number
