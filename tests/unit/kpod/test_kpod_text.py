import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.kpod.text import age, document, short, size, table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("ID", "NAME"), [("1", "long name"), ("22", "x")]) == "ID  NAME\n1   long name\n22  x"


def test_a_cell_cannot_begin_a_line_or_move_the_cursor() -> None:
    assert table(("A",), [("x\ny\x1b[2J",)]) == "A\nx\\ny\\x1b[2J"


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3)))
def test_any_text_makes_one_printable_line_per_row(rows: list[list[str]]) -> None:
    shown = table(("A", "B", "C"), rows)
    assert shown.count("\n") == len(rows)
    assert all(c.isprintable() or c == "\n" for c in shown)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (10 << 20, "10.0 MiB"),
        (999 << 20, "999 MiB"),
        (1 << 63, "8.00 EiB"),
        (1 << 90, f"{1 << 30} EiB"),
    ],
)
def test_sizes_have_three_digits(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 400, "400 d")]
)
def test_ages_have_one_unit(seconds: int, shown: str) -> None:
    now = 10**18
    assert age(now - seconds * 10**9, now) == shown


def test_a_moment_not_reached_has_no_age() -> None:
    assert age(0, 10**18) == ""


def test_ids_are_short_without_their_hash() -> None:
    assert short("sha256:" + "ab" * 32) == "abababababab"


@given(st.dictionaries(st.text(), st.text()))
def test_json_is_what_went_in_and_ascii(value: dict[str, str]) -> None:
    shown = document(value)
    assert json.loads(shown) == value
    assert all(c == "\n" or (c.isascii() and c.isprintable()) for c in shown)
