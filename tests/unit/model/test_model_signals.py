"""Signals by name: whatever images say, a container can be stopped."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.model.signals import parse_signal, signal_name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15), ("term", 15), ("Sigint", 2), ("9", 9), ("SIGRTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63),
        ("SIGRTMAX", 64), ("CLD", 17), ("SIGIOT", 6), ("POLL", 29), ("STKFLT", 16), ("64", 64),
    ],
)  # fmt: skip
def test_names_and_numbers_are_understood(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "-9", "65", "99999999999999999999", "SIGRTMIN+31", "SIGRTMAX+1", "SIG", "SIGSIGTERM", "¹", "९", " 9", "9\n"],
)
def test_anything_else_is_the_default(text: str) -> None:
    assert parse_signal(text) == signal.SIGTERM
    assert parse_signal(text, 3) == 3


@given(st.text(max_size=30))
def test_any_text_gives_a_signal(text: str) -> None:
    assert 1 <= parse_signal(text) <= 64


@given(st.integers(1, 64))
def test_numbers_mean_themselves(number: int) -> None:
    assert parse_signal(str(number)) == number


@pytest.mark.parametrize("number", range(1, int(signal.SIGRTMAX) + 1))
def test_a_signals_name_means_it_again(number: int) -> None:
    assert parse_signal(signal_name(number)) == number


def test_signals_have_their_usual_names() -> None:
    assert [signal_name(number) for number in (2, 15, 37)] == ["SIGINT", "SIGTERM", "SIGRTMIN+3"]
