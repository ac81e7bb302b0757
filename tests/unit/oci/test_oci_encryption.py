"""oci.encryption: annotations of encrypted layers, and keys."""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import CriolloError, Damaged, Invalid, Unsupported
from criollo.oci.digest import Digest
from criollo.oci.encryption import (
    CIPHER,
    MAX_WRAPPED_BYTES,
    LayerKey,
    WrappedKey,
    is_encrypted,
    layer_key,
    plain_type,
    wrapped_key,
)
from criollo.oci.image_spec import OCI_LAYER, Descriptor

JWE = "org.opencontainers.image.enc.keys.jwe"
OPTIONS = "org.opencontainers.image.enc.pubopts"
WRAPPED = WrappedKey(("{}",), bytes(32), b"")


def b64(content: bytes | dict[str, Any]) -> str:
    return base64.b64encode(content if isinstance(content, bytes) else json.dumps(content).encode()).decode()


def options(**changed: Any) -> str:
    return b64({"cipher": CIPHER, "hmac": b64(bytes(32)), "cipheroptions": {}, **changed})


def layer(annotations: dict[str, str], media_type: str = f"{OCI_LAYER}+gzip+encrypted") -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(b""), size=1, annotations=annotations)


def test_only_media_types_that_say_so_are_encrypted() -> None:
    assert is_encrypted(f"{OCI_LAYER}+zstd+encrypted")
    assert plain_type(f"{OCI_LAYER}+zstd+encrypted") == f"{OCI_LAYER}+zstd"
    assert wrapped_key(layer({JWE: "!"}, OCI_LAYER)) is None


def test_all_wrapped_keys_are_found_with_the_hmac_and_a_public_nonce() -> None:
    found = wrapped_key(layer({JWE: f"{b64(b'{1}')},{b64(b'{2}')}", OPTIONS: options()}))
    assert found == WrappedKey(("{1}", "{2}"), bytes(32), b"")
    found = wrapped_key(layer({JWE: b64(b"{}"), OPTIONS: options(cipheroptions={"nonce": b64(b"n" * 16)})}))
    assert found is not None
    assert found.nonce == b"n" * 16


@pytest.mark.parametrize(
    ("annotations", "kind", "told"),
    [
        ({}, Invalid, "since the layer is encrypted"),
        ({"org.opencontainers.image.enc.keys.provider.kms": "x", OPTIONS: options()}, Unsupported, "provider.kms, only jwe"),
        ({JWE: "not base64!", OPTIONS: options()}, Invalid, "base64"),
        ({JWE: b64(b"{}") + ",", OPTIONS: options()}, Invalid, "base64"),
        ({JWE: b64(b"\xff"), OPTIONS: options()}, Invalid, "JSON form"),
        ({JWE: "A" * (MAX_WRAPPED_BYTES + 4), OPTIONS: options()}, Invalid, "at most"),
        ({JWE: b64(b"{}")}, Invalid, "pubopts"),
        ({JWE: b64(b"{}"), OPTIONS: b64(b"[]")}, Invalid, "JSON object"),
        ({JWE: b64(b"{}"), OPTIONS: options(cipher="ROT13")}, Unsupported, "ROT13"),
        ({JWE: b64(b"{}"), OPTIONS: options(hmac=b64(b"short"))}, Invalid, "32 bytes"),
        ({JWE: b64(b"{}"), OPTIONS: options(hmac=None)}, Invalid, "hmac"),
        ({JWE: b64(b"{}"), OPTIONS: options(cipheroptions={"nonce": 7})}, Invalid, "nonce"),
    ],
)
def test_what_cannot_be_decrypted_is_told(annotations: dict[str, str], kind: type[CriolloError], told: str) -> None:
    with pytest.raises(kind, match=told):
        wrapped_key(layer(annotations))


def test_a_key_comes_with_its_nonce_and_is_not_shown() -> None:
    inside = json.dumps({"symkey": b64(b"k" * 32), "cipheroptions": {"nonce": b64(b"n" * 16)}}).encode()
    found = layer_key(inside, WRAPPED, layer="x")
    assert found == LayerKey(b"k" * 32, b"n" * 16)
    assert "k" * 8 not in repr(found)


@pytest.mark.parametrize("inside", [b"", b"[]", b"{}", b'{"symkey": "AAAA"}', b'{"symkey": "secret!"}', b"\xff"])
def test_what_is_no_key_is_told_without_its_content(inside: bytes) -> None:
    with pytest.raises(Damaged, match="cannot decrypt layer x") as told:
        layer_key(inside, WRAPPED, layer="x")
    assert "secret" not in str(told.value)


@given(st.dictionaries(st.sampled_from([JWE, OPTIONS]), st.text(max_size=60)))
def test_any_annotations_give_a_key_or_an_error_of_ours(annotations: dict[str, str]) -> None:
    with contextlib.suppress(Invalid, Unsupported):
        assert wrapped_key(layer(annotations)) is not None
