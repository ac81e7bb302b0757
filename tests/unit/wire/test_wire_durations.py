"""Lengths of time as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire.durations import parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0), ("+0", 0), ("-0", 0), ("0s", 0), ("-0s", 0), ("90s", 90), ("1m30s", 90), ("1h", 3600), ("30s1m", 90)),
        *(("250ms", 0.25), ("1.5s", 1.5), (".5s", 0.5), ("1.s", 1), ("+5s", 5), ("1h2m3.5s", 3723.5), ("0100s", 100)),
        *(("2us", 2e-6), ("2\u00b5s", 2e-6), ("2\u03bcs", 2e-6), ("1ns", 1e-9), ("1.9ns", 1e-9), (f"{'0' * 250}5s", 5)),
        ("9223372036s854775807ns", 9223372036.854775807),
    ],
)
def test_a_length_is_what_go_makes_of_it(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "00", "s", ".s", ".", "+", "-", "1d", "1s ", " 1s", "1 s", "1e9s", "1,5s", "1..5s", "++1s", "1s+1s", "1S"),
        *("\u0661s", "1s\n", "1h30", "9223372036s854775808ns", "999999999999999999h", f"{'0' * 255}5s", "1\u212as"),
        *("-1s", "-1ns"),  # Go takes these; here they would mean nothing
    ],
)
def test_other_shapes_are_none(text: str) -> None:
    assert parse_seconds(text) is None


@given(st.text(max_size=30) | st.text("0123456789.+-nuµμmsh", max_size=30))
def test_any_text_is_a_length_or_none(text: str) -> None:
    found = parse_seconds(text)
    assert found is None or 0 <= found < 1 << 34


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_parts_add_up(hours: int, minutes: int, seconds: int, millis: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{millis}ms"
    assert parse_seconds(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + millis / 1000)
