"""admin.parameters: what a request says, checked."""

import msgspec
import pytest

from criollo.admin import parameters
from criollo.aio.http_server import Request
from criollo.errors import Invalid


class Told(msgspec.Struct):
    secret: str = ""


def asked(body: bytes = b"", **query: list[str]) -> Request:
    return Request(method="GET", path="/", query=query, headers={}, body=body)


def test_values_are_given_as_they_are() -> None:
    request = asked(a=["x"], b=["1"], c=["p", "q"], d=["/x/y"])
    assert (parameters.one(request, "a"), parameters.one(request, "z"), parameters.needed(request, "a")) == ("x", "", "x")
    assert (parameters.is_set(request, "b"), parameters.is_set(request, "z")) == (True, False)
    assert (parameters.several(request, "c"), parameters.several(request, "z")) == (["p", "q"], [])
    assert str(parameters.absolute_path(request, "d")) == "/x/y"
    assert parameters.body(asked(b'{"secret":"s"}'), Told).secret == "s"
    assert parameters.body(asked(), Told).secret == ""


def test_what_cannot_be_is_refused_with_its_name() -> None:
    for call in (
        lambda: parameters.one(asked(a=["x", "y"]), "a"),
        lambda: parameters.needed(asked(), "a"),
        lambda: parameters.is_set(asked(a=["yes"]), "a"),
        lambda: parameters.absolute_path(asked(a=["x/y"]), "a"),
        lambda: parameters.absolute_path(asked(a=["/x\0y"]), "a"),
    ):
        with pytest.raises(Invalid, match=r"^a: "):
            call()


@pytest.mark.parametrize("raw", [b"hunter2", b'{"secret":{"hunter2":1}}', b"\xffhunter2", b"[" * 10000])
def test_a_body_that_cannot_be_read_is_not_shown(raw: bytes) -> None:
    with pytest.raises(Invalid) as told:
        parameters.body(asked(raw), Told)
    assert "hunter2" not in str(told.value)
