import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.kpod.ports import LOCALHOST, Forward, parse_addresses, parse_forward

HERE = ("127.0.0.1",)


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("80", Forward(HERE, 80, 80)),
        ("8080:80", Forward(HERE, 8080, 80)),
        (":80", Forward(HERE, 0, 80)),
        ("0:80", Forward(HERE, 0, 80)),
        ("10.0.0.1:8080:80", Forward(("10.0.0.1",), 8080, 80)),
        ("10.0.0.1::80", Forward(("10.0.0.1",), 0, 80)),
        ("[::1]:8080:80", Forward(("::1",), 8080, 80)),
        ("localhost:8080:80", Forward(LOCALHOST, 8080, 80)),
    ],
)
def test_ports_are_read(text: str, forward: Forward) -> None:
    assert parse_forward(text, HERE) == forward


@pytest.mark.parametrize(
    "text", ["", "0", ":0", "a", "80:", "65536", "65536:80", "1:2:3:4", "::1:80:80", "-1", "8 0", "80\n", "٨٠"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="port"):
        parse_forward(text, HERE)


@given(st.text(max_size=30))
def test_any_text_is_a_forward_or_refused(text: str) -> None:
    try:
        forward = parse_forward(text, HERE)
    except Invalid:
        return
    assert 0 < forward.remote <= 65535
    assert 0 <= forward.local <= 65535
    assert forward.addresses


def test_localhost_is_two_addresses_and_none_comes_twice() -> None:
    assert parse_addresses("10.0.0.1,localhost,::1") == ("10.0.0.1", "127.0.0.1", "::1")


@pytest.mark.parametrize("text", ["", ",", "a b", "1.2.3.4,", "$x"])
def test_words_that_are_no_addresses_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="--address"):
        parse_addresses(text)
