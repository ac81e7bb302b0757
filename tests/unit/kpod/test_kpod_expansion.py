import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.kpod.expansion import expand

KNOWN = {"A": "1", "B": "$(A)", "": "empty"}


# The cases are those of the Kubernetes API's description, and the corners between them.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(B)", "$(A)"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$", "$"),
        ("$$", "$"),
        ("$(A", "$(A"),
        ("$(A$(A)", "$(A$(A)"),
        ("$()", "empty"),
        ("a$b$$c$(A)d", "a$b$c1d"),
    ],
)
def test_names_are_replaced_once(text: str, expected: str) -> None:
    assert expand(text, KNOWN) == expected


@given(st.text(alphabet="$()AB "))
def test_doubled_dollars_give_the_text_itself(text: str) -> None:
    assert expand(text.replace("$", "$$"), KNOWN) == text


@given(st.text())
def test_text_without_dollar_stays(text: str) -> None:
    assert expand(text.replace("$", ""), KNOWN) == text.replace("$", "")
