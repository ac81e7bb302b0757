"""Tokens: good once, for a while, and not too many of them."""

import re

import pytest

from criollo.errors import Exhausted
from criollo.model.ids import PodId
from criollo.model.session import ForwardSession
from criollo.streaming.tokens import Tokens

SESSION = ForwardSession(pod_id=PodId("a" * 64))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_token_is_good_once() -> None:
    tokens = Tokens()
    token = tokens.issue(SESSION)
    assert tokens.take(token) is SESSION
    assert tokens.take(token) is None


def test_token_dies_with_its_minute() -> None:
    clock = Clock()
    tokens = Tokens(clock=clock)
    late, early = tokens.issue(SESSION), tokens.issue(SESSION)
    clock.now = 59.9
    assert tokens.take(early) is SESSION
    clock.now = 60
    assert tokens.take(late) is None


def test_token_has_256_bits_and_fits_a_path() -> None:
    tokens = {Tokens().issue(SESSION) for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)


@pytest.mark.parametrize("token", ["", "x", "../exec", "é", "a" * 10_000])
def test_guesses_find_nothing(token: str) -> None:
    tokens = Tokens()
    tokens.issue(SESSION)
    assert tokens.take(token) is None


def test_too_many_are_refused_until_some_are_used_or_die() -> None:
    clock = Clock()
    tokens = Tokens(clock=clock, limit=2)
    first, _ = tokens.issue(SESSION), tokens.issue(SESSION)
    with pytest.raises(Exhausted, match="2 wait for their clients"):
        tokens.issue(SESSION)
    tokens.take(first)
    tokens.issue(SESSION)
    clock.now = 61
    tokens.issue(SESSION)
    tokens.issue(SESSION)
