"""Patterns of Go, read by Python: the same answers, and none that takes for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.hooks.pattern import LIMIT, parse_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        ("a", "cab", True),
        ("^a$", "a", True),
        ("^a$", "a\n", False),
        (r"a\z", "a\n", False),
        ("[$]", "$", True),
        (r"\$", "$", True),
        ("(?m)^a$", "a\nb", True),
        (r"^\d$", "٣", False),
        (".*true", "untrue", True),
        (".*?true", "untrue", True),
        ("", "x" * 10_000, True),
        (".*", "x" * 10_000, True),
        ("x", "x" * (LIMIT + 1), False),
        ("[]a]", "]", True),
        ("[^]a]", "b", True),
        ("^[[:alpha:]_]+$", "aB_", True),
        ("^[[:alpha:]]$", ":", False),
        ("^[[x]$", "[", True),
        ("(ab)*c", "c", True),
        (".*/node|.*/sh", "/bin/sh", True),
    ],
)
def test_patterns_mean_what_they_mean_in_go(pattern: str, text: str, answer: bool) -> None:
    assert parse_pattern(pattern, "f").matches(text) is answer


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(a*)*b", "((a|b)*c){3}", "(x(a+)y)+", "(", "[a", "*", "a" * 1001, "(?P<n>a)(?P<n>b)", "[a--b]", "[[:none:]]"],
)
def test_what_is_broken_or_endless_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="regular expression"):
        parse_pattern(pattern, "f")


@given(st.text(st.sampled_from(r"ab()[]{}*+?.^$|\z1,:-"), max_size=20), st.text("ab\n", max_size=20))
def test_any_pattern_is_read_or_refused(pattern: str, text: str) -> None:
    try:
        found = parse_pattern(pattern, "f")
    except Invalid:
        return
    assert found.matches(text) in (True, False)
