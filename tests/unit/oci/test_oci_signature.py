"""oci.signature: blobs of both kinds, read and written as container tools do."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.image_spec import MAX_LAYERS
from criollo.oci.signature import (
    MAX_ANNOTATIONS,
    MAX_BLOB_BYTES,
    MAX_BYTES,
    MAX_SIGNATURES,
    SIGSTORE_TYPE,
    SignatureKind,
    parse_blob,
    sigstore,
    simple,
)

texts = st.text(max_size=20)


@given(st.binary(max_size=60), texts, st.dictionaries(texts, texts, max_size=4))
def test_a_sigstore_signature_survives_its_blob(payload, media_type, annotations):
    whole = sigstore(payload, media_type=media_type, annotations=annotations)
    assert parse_blob(whole.to_blob()) == whole


def test_a_simple_signature_is_its_own_blob():
    for message in (b"\x90x", b"\xa3x", b"\xc4x"):
        assert parse_blob(message) == simple(message)
        assert parse_blob(b"\0simple-signing\n" + message) == simple(message)
        assert parse_blob(message).to_blob() == message
    assert parse_blob(b"\x90x").kind is SignatureKind.SIMPLE


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(raw):
    for blob in (raw, b"\0" + raw, b"\0sigstore-json\n" + raw):
        try:
            parse_blob(blob)
        except Invalid:
            continue


@pytest.mark.parametrize(
    "fields",
    [
        {},
        [],
        {"mimeType": SIGSTORE_TYPE},
        {"mimeType": 7, "payload": ""},
        {"mimeType": "", "payload": "%"},
        {"mimeType": "", "payload": "", "annotations": []},
        {"mimeType": "", "payload": "", "annotations": {"a": 7}},
        {"mimeType": "", "payload": "", "annotations": {str(at): "" for at in range(MAX_ANNOTATIONS + 1)}},
    ],
)
def test_malformed_sigstore_blobs(fields):
    with pytest.raises(Invalid):
        parse_blob(b"\0sigstore-json\n" + json.dumps(fields).encode())


def test_absent_annotations_are_none():
    blob = b"\0sigstore-json\n" + json.dumps({"mimeType": "", "payload": base64.b64encode(b"x").decode()}).encode()
    assert parse_blob(blob).annotations == {}


def test_there_are_as_many_as_an_image_can_hold():
    assert MAX_SIGNATURES == MAX_LAYERS


def test_the_longest_payload_is_read_however_it_is_kept():
    message = b"\x90" + bytes(MAX_BYTES - 1)
    assert parse_blob(message).payload == message
    assert parse_blob(b"\0simple-signing\n" + message).payload == message
    longest = sigstore(message, media_type=SIGSTORE_TYPE, annotations={"a": "b" * MAX_BYTES})
    assert parse_blob(longest.to_blob()) == longest


@pytest.mark.parametrize(
    "blob",
    [
        b"\x90" + bytes(MAX_BYTES),
        b"\0simple-signing\n\x90" + bytes(MAX_BYTES),
        sigstore(bytes(MAX_BYTES + 1), media_type=SIGSTORE_TYPE, annotations={}).to_blob(),
    ],
    ids=["bare", "simple", "sigstore"],
)
def test_a_longer_one_is_refused_by_what_it_is(blob):
    with pytest.raises(Invalid, match=rf"{MAX_BYTES + 1} bytes.*at most {MAX_BYTES} bytes"):
        parse_blob(blob)


def test_a_blob_has_a_limit():
    with pytest.raises(Invalid, match=f"at most {MAX_BLOB_BYTES} bytes"):
        parse_blob(b"\0sigstore-json\n" + bytes(MAX_BLOB_BYTES))
