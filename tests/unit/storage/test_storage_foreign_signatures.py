"""storage.foreign_signatures: signatures of a manifest, taken apart as containers/storage keeps them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.oci.digest import Digest
from criollo.oci.signature import MAX_SIGNATURES
from criollo.storage.foreign_signatures import MAX_BYTES, find, split

DIGEST = Digest("sha256:" + "d" * 64)


@pytest.mark.parametrize(
    ("metadata", "document", "sizes"),
    [
        ({"signatures-sizes": {DIGEST: [3, 4]}}, f"signature-{'d' * 64}", (3, 4)),
        ({"signature-sizes": [5]}, "signatures", (5,)),
        ({"signature-sizes": [5], "signatures-sizes": {DIGEST: []}}, "signatures", (5,)),
    ],
)
def test_both_ways_of_keeping_them_are_known(metadata: object, document: str, sizes: tuple[int, ...]) -> None:
    assert find(json.dumps(metadata), DIGEST) == (document, sizes)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"signatures-sizes": {"sha256:" + "e" * 64: [3]}},
        {"signature-sizes": [-1]},
        {"signature-sizes": [0]},
        {"signature-sizes": [MAX_BYTES, 1]},
        {"signature-sizes": [1] * (MAX_SIGNATURES + 1)},
        {"signature-sizes": "3"},
        [],
    ],
)
def test_none_and_senseless_ones_are_none(metadata: object) -> None:
    assert find(json.dumps(metadata), DIGEST) is None
    assert find("", DIGEST) is None


@given(st.lists(st.binary(min_size=1), max_size=5))
def test_what_was_put_together_is_taken_apart(blobs: list[bytes]) -> None:
    sizes = tuple(len(blob) for blob in blobs)
    assert split(b"".join(blobs), sizes) == tuple(blobs)
    assert split(b"".join(blobs) + b"x", sizes) == ()


@given(st.text())
def test_any_metadata_is_understood_or_none(text: str) -> None:
    assert find(text, DIGEST) is None
