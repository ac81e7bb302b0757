"""Which fields make a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire.hpack import Field
from criollo.wire.http2_fields import FieldRules, Malformed

REQUEST = ((":method", "POST"), (":scheme", "http"), (":path", "/s/m"))


@pytest.mark.parametrize(
    "more",
    [
        (),
        ((":authority", "localhost"), ("te", "trailers"), ("user-agent", "grpc-go/1.65 (linux; x)")),
        (("x", ""), ("x", "again"), ("y", "tab\tand \xe9")),
    ],
)
def test_requests_that_are_well_formed(more: tuple[Field, ...]) -> None:
    rules = FieldRules()
    assert rules.request(REQUEST + more) is None
    assert rules.request(REQUEST + more) is None


@pytest.mark.parametrize(
    "fields",
    [
        (),
        REQUEST[1:],
        REQUEST[:2],
        (*REQUEST[:2], (":path", "")),
        (*REQUEST, (":path", "/twice")),
        (*REQUEST, (":status", "200")),
        (*REQUEST, (":protocol", "websocket")),
        (("x", "y"), *REQUEST),
        (*REQUEST, ("", "y")),
        (*REQUEST, (":", "y")),
        (*REQUEST, ("X", "y")),
        (*REQUEST, ("a b", "y")),
        (*REQUEST, ("x", "a\r\nb")),
        (*REQUEST, ("x", "a\0b")),
        (*REQUEST, ("x", " a")),
        (*REQUEST, ("x", "a\t")),
        (*REQUEST, ("x", "a\n")),
        (*REQUEST, ("connection", "close")),
        (*REQUEST, ("transfer-encoding", "chunked")),
        (*REQUEST, ("te", "gzip")),
        (*REQUEST, ("content-length", "-1")),
        (*REQUEST, ("content-length", "1"), ("content-length", "2")),
        ((":method", "CONNECT"), *REQUEST[1:]),
    ],
)
def test_malformed_request_is_refused_each_time(fields: tuple[Field, ...]) -> None:
    rules = FieldRules()
    for _ in range(2):
        with pytest.raises(Malformed):
            rules.request(fields)


def test_length_of_the_body_is_told_each_time() -> None:
    rules, fields = FieldRules(), (*REQUEST, ("content-length", "17"))
    assert [rules.request(fields), rules.request(fields)] == [17, 17]


def test_connect_has_an_authority_and_nothing_else() -> None:
    assert FieldRules().request(((":method", "CONNECT"), (":authority", "a:1"))) is None


def test_response_has_a_status_and_trailers_have_none() -> None:
    assert FieldRules().response(((":status", "204"), ("x", "y"))) == 204
    FieldRules().trailers((("grpc-status", "0"),))
    with pytest.raises(Malformed):
        FieldRules().trailers(((":status", "200"),))
    for status in ("", "20", "2000", "abc"):
        with pytest.raises(Malformed):
            FieldRules().response(((":status", status),))


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=6).map(tuple))
def test_any_fields_are_judged(fields: tuple[Field, ...]) -> None:
    try:
        FieldRules().request(fields)
    except Malformed:
        return
    assert all(name == name.lower() and "\n" not in name + value for name, value in fields)
