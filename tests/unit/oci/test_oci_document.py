"""oci.document: one meaning per document, or none, and soon."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci import document

LIMIT = 4 << 20


def read(raw):
    return document.parse(raw, what="it", limit_bytes=LIMIT)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_a_document_is_its_value(value):
    assert read(json.dumps(value).encode()) == value


@given(st.binary(max_size=100) | st.text(alphabet='{}[]",:0eE.-\\u ntrfals', max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_refused(raw):
    with contextlib.suppress(Invalid):
        json.dumps(read(raw), allow_nan=False)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b" " * LIMIT + b"1", "4194304 bytes"),
        (b"[" * 101 + b"]" * 101, "levels"),
        (b"[" * 50_000, "no JSON|levels"),
        (b"[" * 50_001, "brackets"),
        (b"[" + b"{}," * 50_000 + b"1]", "brackets"),
        (b"[" + b"1," * 100_001 + b"1]", "commas"),
        (b'{"a":{"b":1,"b":1}}', "'b' twice"),
    ],
)
def test_what_costs_too_much_or_means_two_things_is_refused(raw, said):
    with pytest.raises(Invalid, match=said):
        read(raw)


def test_as_much_as_allowed_is_read():
    assert len(read(b"[" + b"1," * 99_999 + b"1]")) == 100_000
    assert len(read(b"[" + b"{}," * 49_998 + b"{}]")) == 49_999
    assert read(b"[" * 100 + b"]" * 100)
    assert len(read(b'"' + b"," * 90_000 + b"x" * 4_000_000 + b'"')) == 4_090_000
