"""Entries of the transparency log Rekor, checked without asking anybody: the log's signature over what it saw, and when.

The log signs its entry as canonical JSON (RFC 8785); the entry holds the digest of the payload, the signature and its maker.

Source: cosign's SIGNATURE_SPEC (bundle); rekor's hashedrekord v0.0.1.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from criollo.errors import Denied, Invalid
from criollo.oci import document
from criollo.trust.fields import an_object, decoded, exactly, text

MAX_BYTES: Final = 1 << 20
_LARGEST: Final = 2**53 - 1  # a whole number that JSON means the same everywhere
_PEM: Final = re.compile(rb"\s*-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----\s*")
_PLAIN: Final = re.compile(r"[A-Za-z0-9+/=_.:-]*")


def check(entry: str, logs: Sequence[ec.EllipticCurvePublicKey], *, maker: bytes, signature: bytes, payload: bytes) -> float:
    """When (seconds since the epoch) a log saw `signature` over `payload` by `maker`, a key or certificate in PEM.

    Raises:
        Denied, Invalid: no log of ours says so.
    """
    where = "log entry"
    bundle = document.parse_object(entry.encode(), what=where, limit_bytes=MAX_BYTES)
    exactly(bundle, {"SignedEntryTimestamp", "Payload"}, where)
    stated = an_object(bundle["Payload"], f"{where}.Payload")
    exactly(stated, {"body", "integratedTime", "logIndex", "logID"}, f"{where}.Payload")
    promise = decoded(bundle["SignedEntryTimestamp"], f"{where}.SignedEntryTimestamp")
    signed = _canonical(stated, f"{where}.Payload")
    if not any(_fits(key, promise, signed) for key in logs):
        raise Denied("its log entry is signed by no log that the policy has")
    _compare(decoded(stated["body"], f"{where}.body"), maker=maker, signature=signature, payload=payload)
    return float(stated["integratedTime"])


def _canonical(stated: dict[str, Any], where: str) -> bytes:
    """RFC 8785 for exactly these four members: names in order, strings that need no escapes, whole numbers."""
    for key in ("integratedTime", "logIndex"):
        number = stated[key]
        if isinstance(number, bool) or not isinstance(number, int) or not -1 <= number <= _LARGEST:
            raise Invalid(f"{where}.{key}", number, "a whole number")
    for key in ("body", "logID"):
        if not _PLAIN.fullmatch(text(stated[key], f"{where}.{key}")):
            raise Invalid(f"{where}.{key}", stated[key], "letters and digits")
    body, at, log_id, index = (stated[key] for key in ("body", "integratedTime", "logID", "logIndex"))
    return f'{{"body":"{body}","integratedTime":{at},"logID":"{log_id}","logIndex":{index}}}'.encode()


def _fits(key: ec.EllipticCurvePublicKey, promise: bytes, signed: bytes) -> bool:
    try:
        key.verify(promise, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _compare(body: bytes, *, maker: bytes, signature: bytes, payload: bytes) -> None:
    """That the log saw exactly this signature, by this maker, over this payload."""
    where = "log entry body"
    record = document.parse_object(body, what=where, limit_bytes=MAX_BYTES)
    if record.get("kind") != "hashedrekord" or record.get("apiVersion") != "0.0.1":
        raise Denied("its log entry is of a kind that is not supported; hashedrekord 0.0.1 is")
    spec = an_object(record.get("spec"), f"{where}.spec")
    seen = an_object(spec.get("signature"), f"{where}.spec.signature")
    by = an_object(seen.get("publicKey"), f"{where}.spec.signature.publicKey")
    if _der(decoded(by.get("content"), f"{where}.publicKey.content")) != _der(maker):
        raise Denied("its log entry is about another key or certificate")
    if decoded(seen.get("content"), f"{where}.signature.content") != signature:
        raise Denied("its log entry is about another signature")
    hashed = an_object(an_object(spec.get("data"), f"{where}.spec.data").get("hash"), f"{where}.spec.data.hash")
    if hashed.get("algorithm") != "sha256":
        raise Denied("its log entry has a digest that is not supported; sha256 is")
    if text(hashed.get("value"), f"{where}.hash.value").lower() != hashlib.sha256(payload).hexdigest():
        raise Denied("its log entry is about another text")


def _der(pem: bytes) -> bytes:
    """The content of exactly one block of PEM."""
    found = _PEM.fullmatch(pem)
    if found is None:
        raise Denied("a key or certificate in it is not one block of PEM")
    return base64.b64decode(b"".join(found[2].split()), validate=True)
