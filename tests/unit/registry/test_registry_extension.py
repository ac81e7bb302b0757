"""registry.extension: the list of signatures that a registry gives."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.signature import MAX_BYTES
from criollo.registry.extension import parse
from criollo.registry.lookaside import MAX_SIGNATURES


def listed(*blobs: bytes, version: int = 2, kind: str = "atomic") -> list[dict[str, object]]:
    return [
        {"schemaVersion": version, "name": f"sha256:a@{at}", "type": kind, "content": base64.b64encode(blob).decode()}
        for at, blob in enumerate(blobs)
    ]


def parsed(*entries: object) -> list[bytes]:
    return parse(json.dumps({"signatures": entries}).encode(), what="signatures of r.example/a")


def test_simple_signatures_are_taken_in_order_and_others_left_out() -> None:
    others = [*listed(b"x", version=1), *listed(b"y", kind="other")]
    assert parsed(*listed(b"a", b"b"), *others) == [b"a", b"b"]
    assert parsed() == parse(b"{}", what="") == parse(b'{"signatures":null}', what="") == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"signatures":7}',
        b'{"signatures":[7]}',
        b'{"signatures":[{"schemaVersion":"2"}]}',
        b'{"signatures":[{"schemaVersion":2,"type":"atomic","content":"*"}]}',
        b'{"signatures":[],"signatures":[]}',
    ],
)
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse(raw, what="signatures")


def test_too_many_and_too_long_ones_are_refused() -> None:
    assert len(parsed(*listed(*[b"a"] * MAX_SIGNATURES))) == MAX_SIGNATURES
    with pytest.raises(Invalid, match="at most"):
        parsed(*listed(*[b"a"] * (MAX_SIGNATURES + 1)))
    with pytest.raises(Invalid):
        parsed(*listed(b"a" * (MAX_BYTES + 1)))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_or_refused(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(parse(raw, what="signatures"), list)
