"""Signatures of images, as anybody may have made them: two kinds, and the blob form in which both are stored.

A `simple` signature is one OpenPGP message around its payload; a `sigstore` one is a payload with annotations that hold the
signature over it, and perhaps a certificate and a log entry. Nothing here is verified: that is the trust room's.

Source: containers/image, docs/signature-protocols.md and containers-signature(5); cosign's SIGNATURE_SPEC.
"""

import base64
import binascii
from enum import StrEnum
from typing import Any, Final

import msgspec

from criollo.errors import Invalid
from criollo.oci import document

MAX_BYTES: Final = 4 << 20  # of the payload of one signature
MAX_BLOB_BYTES: Final = 3 * MAX_BYTES  # as it is kept: that in base64, and annotations that came in a manifest
MAX_SIGNATURES: Final = 1000  # of one manifest: as many as an image that holds them can have
MAX_ANNOTATIONS: Final = 64
SIGSTORE_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIMPLE_NAME: Final = b"simple-signing"
_SIGSTORE_NAME: Final = b"sigstore-json"
# First bytes of an OpenPGP message: compressed data, one-pass signature, signature (RFC 4880, section 4.2).
_OPENPGP: Final = frozenset({0xA0, 0xA1, 0xA2, 0xA3, 0xC8, 0x90, 0x91, 0x92, 0x93, 0xC4, 0x88, 0x89, 0x8A, 0x8B, 0xC2})


class SignatureKind(StrEnum):
    """What a signature is made with."""

    SIMPLE = "simple signing"
    SIGSTORE = "sigstore"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature, unverified. `payload` of a simple one is the whole OpenPGP message."""

    kind: SignatureKind
    payload: bytes
    media_type: str = ""
    annotations: dict[str, str] = {}

    def to_blob(self) -> bytes:
        """The form in which container tools store it."""
        if self.kind is SignatureKind.SIMPLE:
            return self.payload
        fields = {
            "mimeType": self.media_type,
            "payload": base64.b64encode(self.payload).decode(),
            "annotations": self.annotations,
        }
        return b"\0" + _SIGSTORE_NAME + b"\n" + msgspec.json.encode(fields)


def simple(message: bytes) -> Signature:
    """The simple signature that an OpenPGP message is."""
    return Signature(kind=SignatureKind.SIMPLE, payload=message)


def parse_blob(blob: bytes, *, what: str = "signature") -> Signature:
    """The signature that a stored blob holds.

    Raises:
        Invalid: it is neither kind, too long or malformed.
    """
    if len(blob) > MAX_BLOB_BYTES:
        raise Invalid(what, f"{len(blob)} bytes", f"at most {MAX_BLOB_BYTES} bytes")
    if blob[:1] != b"\0":
        _check_size(blob, what)
        if not blob or blob[0] not in _OPENPGP:
            raise Invalid(what, blob[:8], "an OpenPGP message, or a blob that begins with a zero byte and its format")
        return simple(blob)
    name, newline, chunk = blob[1:].partition(b"\n")
    if newline and name == _SIMPLE_NAME:
        _check_size(chunk, what)
        return simple(chunk)
    if newline and name == _SIGSTORE_NAME:
        return _sigstore(chunk, what)
    raise Invalid(what, name[:40], "the format simple-signing or sigstore-json")


def _check_size(payload: bytes, what: str) -> None:
    if len(payload) > MAX_BYTES:
        raise Invalid(what, f"{len(payload)} bytes", f"at most {MAX_BYTES} bytes")


def _sigstore(chunk: bytes, what: str) -> Signature:
    fields = document.parse_object(chunk, what=what, limit_bytes=MAX_BLOB_BYTES)
    media_type, payload, annotations = (fields.get(key) for key in ("mimeType", "payload", "annotations"))
    if not isinstance(media_type, str) or not isinstance(payload, str):
        raise Invalid(what, sorted(fields)[:10], "mimeType and payload as strings")
    try:
        decoded = base64.b64decode(payload, validate=True)
    except (ValueError, binascii.Error):
        raise Invalid(f"{what}.payload", payload[:40], "base64") from None
    _check_size(decoded, f"{what}.payload")
    return sigstore(decoded, media_type=media_type, annotations={} if annotations is None else annotations, what=what)


def sigstore(payload: bytes, *, media_type: str, annotations: Any, what: str = "signature") -> Signature:
    """A sigstore signature of its parts.

    Raises:
        Invalid: the annotations are no strings, or too many.
    """
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise Invalid(f"{what}.annotations", type(annotations).__name__, "an object of strings")
    if len(annotations) > MAX_ANNOTATIONS:
        raise Invalid(f"{what}.annotations", f"{len(annotations)} entries", f"at most {MAX_ANNOTATIONS}")
    return Signature(kind=SignatureKind.SIGSTORE, payload=payload, media_type=media_type, annotations=annotations)
