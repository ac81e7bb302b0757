"""JSON Web Encryption, one way: from a JWE in its JSON form and private keys to what is inside. Reads hostile bytes.

    key management       RSA-OAEP, RSA-OAEP-256, ECDH-ES, ECDH-ES+A128KW, +A192KW, +A256KW
    content              A128GCM, A192GCM, A256GCM

`cryptography` costs 12 MiB and 40 ms, so only a worker that unwraps a key loads it.
Source: RFC 7516 (JWE), RFC 7518 (algorithms), section 4.6 for ECDH-ES; SP 800-56A for its key derivation.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

MAX_RECIPIENTS: Final = 32
_CONTENT_BYTES: Final = {"A128GCM": 16, "A192GCM": 24, "A256GCM": 32}
_WRAP_BYTES: Final = {"ECDH-ES+A128KW": 16, "ECDH-ES+A192KW": 24, "ECDH-ES+A256KW": 32}
_OAEP: Final[dict[str, hashes.HashAlgorithm]] = {"RSA-OAEP": hashes.SHA1(), "RSA-OAEP-256": hashes.SHA256()}  # noqa: S303
_CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}


class Malformed(Exception):
    """No JWE, or one of a kind that is not read; the text says what, and nothing of the content."""


class _NotForThisKey(Exception):
    """A recipient's part that this key does not open."""


def load_key(content: bytes) -> PrivateKey:
    """The private key in a file: PEM or DER, RSA or elliptic curve, without a password.

    Raises:
        ValueError: it is none.
    """
    for load in (serialization.load_pem_private_key, serialization.load_der_private_key):
        try:
            key = load(content, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            return key
    raise ValueError("no private key of RSA or an elliptic curve without a password, in PEM or DER")


def decrypt(text: str, keys: Iterable[PrivateKey]) -> bytes | None:
    """What is inside a JWE; None if none of the keys opens it.

    Raises:
        Malformed: see there.
    """
    value = _object(text)
    protected = _encoded(value, "protected")
    shared = {**_header(protected), **_member(value, "unprotected")}
    aad = protected if "aad" not in value else f"{protected}.{_encoded(value, 'aad')}"
    sealed = _bytes(value, "ciphertext") + _bytes(value, "tag")
    iv = _bytes(value, "iv")
    for recipient in _recipients(value):
        header = {**shared, **_member(recipient, "header")}
        if header.get("enc") not in _CONTENT_BYTES:
            raise Malformed(f"content encryption {str(header.get('enc'))[:40]!r}")
        if "zip" in header or "crit" in header:
            raise Malformed("a compressed or extended JWE")
        for key in keys:
            try:
                content_key = _unwrap(key, header, _bytes(recipient, "encrypted_key", required=False))
                return AESGCM(content_key).decrypt(iv, sealed, aad.encode())
            except (_NotForThisKey, InvalidTag, InvalidUnwrap, ValueError):
                continue
    return None


def _unwrap(key: PrivateKey, header: Mapping[str, Any], wrapped: bytes) -> bytes:
    """The content key."""
    algorithm, content = str(header.get("alg")), str(header["enc"])
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm not in _OAEP:
            raise _NotForThisKey
        name = _OAEP[algorithm]
        found = key.decrypt(wrapped, padding.OAEP(padding.MGF1(name), name, None))
    elif algorithm == "ECDH-ES":
        found = _agree(key, header, content, _CONTENT_BYTES[content])
    elif algorithm in _WRAP_BYTES:
        found = aes_key_unwrap(_agree(key, header, algorithm, _WRAP_BYTES[algorithm]), wrapped)
    else:
        raise _NotForThisKey
    if len(found) != _CONTENT_BYTES[content]:
        raise _NotForThisKey
    return found


def _agree(key: ec.EllipticCurvePrivateKey, header: Mapping[str, Any], algorithm: str, size: int) -> bytes:
    """The key that both sides derive. Source: RFC 7518, section 4.6.2; one round of SHA-256 is enough for 32 bytes."""
    epk = _member(header, "epk")
    curve = _CURVES.get(str(epk.get("crv")))
    if curve is None or epk.get("kty") != "EC" or not isinstance(key.curve, curve):
        raise _NotForThisKey
    x, y = (int.from_bytes(_bytes(epk, name), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()  # refuses a point that is not on the curve
    parts = [algorithm.encode(), *(_bytes(header, name, required=False) for name in ("apu", "apv"))]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts) + (8 * size).to_bytes(4, "big")
    agreed = key.exchange(ec.ECDH(), public)
    return hashlib.sha256(b"\0\0\0\1" + agreed + info).digest()[:size]


def _recipients(value: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The general form has a list of them; the flattened form is its own only one."""
    if "recipients" not in value:
        return [value]
    found = value["recipients"]
    if not isinstance(found, list) or len(found) > MAX_RECIPIENTS or not all(isinstance(each, dict) for each in found):
        raise Malformed(f"recipients that are no list of at most {MAX_RECIPIENTS}")
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("no JSON") from None
    if not isinstance(value, dict):
        raise Malformed("no JSON object")
    return value


def _header(encoded: str) -> dict[str, Any]:
    try:
        return _object(_decoded(encoded).decode())
    except UnicodeDecodeError:
        raise Malformed("a header that is no text") from None


def _member(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise Malformed(f"{name} that is no object")
    return found


def _encoded(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise Malformed(f"no {name}")
    return found


def _bytes(value: Mapping[str, Any], name: str, *, required: bool = True) -> bytes:
    if not required and value.get(name) is None:
        return b""
    return _decoded(_encoded(value, name))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("text that is no base64url") from None
