"""Encrypted layers as ocicrypt writes them: what their annotations say, and what is inside a wrapped key. Pure.

    org.opencontainers.image.enc.keys.jwe     base64(JWE),base64(JWE),…     the layer's key, wrapped for somebody
    org.opencontainers.image.enc.pubopts      base64({"cipher": …, "hmac": base64, "cipheroptions": {…}})
    inside a JWE                              {"symkey": base64, "digest": …, "cipheroptions": {"nonce": base64}}

A layer is encrypted after it was compressed. Its media type ends in `+encrypted`.
Source: containers/ocicrypt, spec/spec.go, blockcipher/blockcipher.go, encryption.go.
"""

import base64
import binascii
from typing import Any, Final, NamedTuple

from criollo.errors import Damaged, Invalid, Unsupported
from criollo.oci import document
from criollo.oci.image_spec import Descriptor

ENCRYPTED: Final = "+encrypted"
CIPHER: Final = "AES_256_CTR_HMAC_SHA256"
MAX_WRAPPED_BYTES: Final = 24 << 10  # all JWEs of a layer: they travel to a worker in one packet
_KEYS: Final = "org.opencontainers.image.enc.keys."
_JWE: Final = f"{_KEYS}jwe"
_OPTIONS: Final = "org.opencontainers.image.enc.pubopts"
_KEY_BYTES, _NONCE_BYTES, _HMAC_BYTES = 32, 16, 32


class WrappedKey(NamedTuple):
    """The key of a layer, wrapped for one or more recipients; `hmac` is that of the encrypted bytes."""

    jwes: tuple[str, ...]
    hmac: bytes
    nonce: bytes  # empty: it is in the wrapped key


class LayerKey(NamedTuple):
    """What opens a layer; a secret."""

    key: bytes
    nonce: bytes

    def __repr__(self) -> str:
        return "LayerKey(***)"


def is_encrypted(media_type: str) -> bool:
    return media_type.endswith(ENCRYPTED)


def plain_type(media_type: str) -> str:
    """The media type that the layer has once it is decrypted."""
    return media_type.removesuffix(ENCRYPTED)


def wrapped_key(layer: Descriptor) -> WrappedKey | None:
    """How the key of a layer is wrapped; None for a layer that is not encrypted.

    Raises:
        Unsupported: by something else than JWE, or the layer by another cipher; the message names it.
        Invalid: an annotation is missing or malformed.
    """
    if not is_encrypted(layer.media_type):
        return None
    what = f"layer {layer.digest}"
    text = layer.annotations.get(_JWE, "")
    if not text:
        schemes = sorted(key.removeprefix(_KEYS) for key in layer.annotations if key.startswith(_KEYS))
        if not schemes:
            raise Invalid(f"{what} annotations", "no wrapped key", f"{_JWE}, since the layer is encrypted")
        raise Unsupported(f"cannot decrypt {what}: its key is wrapped by {', '.join(schemes)[:200]}, only jwe is read")
    if len(text) > MAX_WRAPPED_BYTES:
        raise Invalid(f"{what} annotation {_JWE}", f"{len(text)} characters", f"at most {MAX_WRAPPED_BYTES}")
    jwes = tuple(_decoded(each, f"{what} annotation {_JWE}") for each in text.split(","))
    options = _options(layer, what)
    try:
        return WrappedKey(tuple(each.decode("ascii") for each in jwes), options[0], options[1])
    except UnicodeDecodeError:
        raise Invalid(f"{what} annotation {_JWE}", "other bytes", "JWEs in their JSON form") from None


def layer_key(unwrapped: bytes, wrapped: WrappedKey, *, layer: str) -> LayerKey:
    """The key that was inside a JWE.

    Raises:
        Damaged: it is none of ours; the message has nothing of its content.
    """
    try:
        value = document.parse_object(unwrapped, what="key", limit_bytes=MAX_WRAPPED_BYTES)
        key = _decoded(value.get("symkey"), "key.symkey")
        nonce = wrapped.nonce or _nonce(value.get("cipheroptions"), "key.cipheroptions")
    except Invalid:
        raise Damaged(f"cannot decrypt layer {layer}: what its JWE holds is no key; encrypt the image again") from None
    if len(key) != _KEY_BYTES or len(nonce) != _NONCE_BYTES:
        raise Damaged(f"cannot decrypt layer {layer}: its key or nonce has the wrong length; encrypt the image again")
    return LayerKey(key, nonce)


def _options(layer: Descriptor, what: str) -> tuple[bytes, bytes]:
    """The HMAC, and the nonce if it is public."""
    field = f"{what} annotation {_OPTIONS}"
    raw = _decoded(layer.annotations.get(_OPTIONS), field)
    value = document.parse_object(raw, what=field, limit_bytes=MAX_WRAPPED_BYTES)
    cipher = value.get("cipher")
    if cipher != CIPHER:
        raise Unsupported(f"cannot decrypt {what}: its cipher is {str(cipher)[:100]!r}, only {CIPHER} is read")
    hmac = _decoded(value.get("hmac"), f"{field}.hmac")
    if len(hmac) != _HMAC_BYTES:
        raise Invalid(f"{field}.hmac", f"{len(hmac)} bytes", f"{_HMAC_BYTES} bytes")
    return hmac, _nonce(value.get("cipheroptions"), f"{field}.cipheroptions")


def _nonce(options: Any, field: str) -> bytes:
    if not isinstance(options, dict) or options.get("nonce") is None:
        return b""
    return _decoded(options["nonce"], f"{field}.nonce")


def _decoded(text: object, field: str) -> bytes:
    if not isinstance(text, str) or not text:
        raise Invalid(field, type(text).__name__, "text in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(field, "other characters", "text in base64") from None
