import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.trust.fields import an_object, decoded, exactly, only, text, texts


@given(st.binary(min_size=1, max_size=200))
def test_base64_may_be_broken_into_lines(raw):
    assert decoded(base64.b64encode(raw).decode(), "x") == raw
    assert decoded(base64.encodebytes(raw).decode(), "x") == raw


@pytest.mark.parametrize("value", ["%", "a", "YQ", "YQ==YQ==", " YQ==", "", None, 7, b"YQ=="])
def test_what_is_no_base64(value):
    with pytest.raises(Invalid, match="x"):
        decoded(value, "x")


@pytest.mark.parametrize("value", ["", None, 7, []])
def test_what_is_no_text(value):
    with pytest.raises(Invalid):
        text(value, "x")


@pytest.mark.parametrize("value", [[], None, "a", [""], ["a", 7]])
def test_what_is_no_list_of_texts(value):
    with pytest.raises(Invalid):
        texts(value, "x")


def test_keys():
    assert an_object({"a": 1}, "x") == {"a": 1}
    exactly({"a": 1}, {"a"}, "x")
    only({}, {"a"}, "x")
    for wrong in (lambda: only({"b": 1}, {"a"}, "x"), lambda: exactly({}, {"a"}, "x"), lambda: an_object([], "x")):
        with pytest.raises(Invalid):
            wrong()
