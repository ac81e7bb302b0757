"""workers.jwe: JWEs of every algorithm that is read, made here by the letters of the RFCs, and what is no JWE."""

import base64
import contextlib
import hashlib
import json
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from criollo.workers.jwe import MAX_RECIPIENTS, Malformed, decrypt, load_key

RSA = rsa.generate_private_key(65537, 2048)
CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
EC = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
CONTENT = {"A128GCM": 16, "A192GCM": 24, "A256GCM": 32}


def url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def for_rsa(algorithm: str, key: bytes) -> dict[str, Any]:
    name = hashes.SHA1() if algorithm == "RSA-OAEP" else hashes.SHA256()
    wrapped = RSA.public_key().encrypt(key, padding.OAEP(padding.MGF1(name), name, None))
    return {"header": {"alg": algorithm}, "encrypted_key": url64(wrapped)}


def agreed(curve: str, algorithm: str, size: int) -> tuple[dict[str, Any], bytes]:
    """The header of ECDH-ES for the key of this curve, and what both sides derive."""
    ephemeral = ec.generate_private_key(CURVES[curve])
    numbers = ephemeral.public_key().public_numbers()
    width = (CURVES[curve].key_size + 7) // 8
    epk = {
        "kty": "EC",
        "crv": curve,
        "x": url64(numbers.x.to_bytes(width, "big")),
        "y": url64(numbers.y.to_bytes(width, "big")),
    }
    secret = ephemeral.exchange(ec.ECDH(), EC[curve].public_key())
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (algorithm.encode(), b"Alice", b""))
    derived = hashlib.sha256(b"\0\0\0\1" + secret + info + (8 * size).to_bytes(4, "big")).digest()[:size]
    return {"epk": epk, "apu": url64(b"Alice")}, derived


def for_curve(curve: str, algorithm: str, key: bytes) -> dict[str, Any]:
    header, derived = agreed(curve, algorithm, int(algorithm[-5:-2]) // 8)
    return {"header": {"alg": algorithm, **header}, "encrypted_key": url64(aes_key_wrap(derived, key))}


def seal(recipients: list[dict[str, Any]], key: bytes, content: str = "A256GCM") -> str:
    protected, iv = url64(json.dumps({"enc": content}).encode()), os.urandom(12)
    sealed = AESGCM(key).encrypt(iv, b"inside", protected.encode())
    document = {"protected": protected, "iv": url64(iv), "ciphertext": url64(sealed[:-16]), "tag": url64(sealed[-16:])}
    return json.dumps({**document, **(recipients[0] if len(recipients) == 1 else {"recipients": recipients})})


@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("algorithm", ["RSA-OAEP", "RSA-OAEP-256"])
def test_rsa_opens_what_was_wrapped_for_it(algorithm: str, content: str) -> None:
    key = os.urandom(CONTENT[content])
    assert decrypt(seal([for_rsa(algorithm, key)], key, content), [EC["P-256"], RSA]) == b"inside"


@pytest.mark.parametrize("algorithm", ["ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"])
@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_opens_what_was_wrapped_for_it(curve: str, algorithm: str) -> None:
    key = os.urandom(32)
    assert decrypt(seal([for_curve(curve, algorithm, key)], key), [RSA, *EC.values()]) == b"inside"


def test_a_key_may_be_agreed_on_directly() -> None:
    header, key = agreed("P-256", "A256GCM", 32)
    assert decrypt(seal([{"header": {"alg": "ECDH-ES", **header}}], key), [EC["P-256"]]) == b"inside"


def test_the_example_of_the_standard() -> None:
    """RFC 7518, appendix C: what Bob derives."""
    numbers = ec.EllipticCurvePrivateNumbers(
        int.from_bytes(base64.urlsafe_b64decode("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw="), "big"),
        ec.EllipticCurvePublicNumbers(
            int.from_bytes(base64.urlsafe_b64decode("weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ="), "big"),
            int.from_bytes(base64.urlsafe_b64decode("e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck="), "big"),
            ec.SECP256R1(),
        ),
    )
    epk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
        "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
    }
    key = base64.urlsafe_b64decode("VqqN6vgjbSBcIijNcacQGg==")
    header = {"alg": "ECDH-ES", "epk": epk, "apu": "QWxpY2U", "apv": "Qm9i"}
    assert decrypt(seal([{"header": header}], key, "A128GCM"), [numbers.private_key()]) == b"inside"


def test_one_of_several_recipients_is_enough() -> None:
    key = os.urandom(32)
    text = seal([for_curve("P-384", "ECDH-ES+A256KW", key), for_rsa("RSA-OAEP", key)], key)
    assert decrypt(text, [RSA]) == b"inside"
    assert decrypt(text, [EC["P-384"]]) == b"inside"
    assert decrypt(text, [EC["P-256"], rsa.generate_private_key(65537, 2048)]) is None


def test_a_changed_byte_opens_nothing() -> None:
    key = os.urandom(32)
    for name in ("ciphertext", "tag", "iv", "encrypted_key"):
        document = json.loads(seal([for_rsa("RSA-OAEP", key)], key))
        document[name] = url64(bytes(16))
        assert decrypt(json.dumps(document), [RSA]) is None
    document = json.loads(seal([for_rsa("RSA-OAEP", key)], key))
    document["protected"] = url64(json.dumps({"enc": "A256GCM", "x": 1}).encode())
    assert decrypt(json.dumps(document), [RSA]) is None


def test_a_point_beside_the_curve_opens_nothing() -> None:
    key = os.urandom(32)
    document = json.loads(seal([for_curve("P-256", "ECDH-ES+A256KW", key)], key))
    document["header"]["epk"]["y"] = url64(bytes(31) + b"\1")
    assert decrypt(json.dumps(document), [EC["P-256"]]) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"protected": 7},
        {"protected": "!"},
        {"protected": url64(b"\xff")},
        {"protected": url64(b'{"enc": "A128CBC-HS256"}')},
        {"protected": url64(b'{"enc": "A256GCM", "zip": "DEF"}')},
        {"protected": url64(b'{"enc": "A256GCM", "crit": ["x"]}')},
        {"recipients": {}},
        {"recipients": [7]},
        {"recipients": [{}] * (MAX_RECIPIENTS + 1)},
        {"header": []},
        {"iv": None},
        {"tag": "§"},
    ],
)
def test_what_is_no_jwe_of_ours_is_malformed(changed: dict[str, Any]) -> None:
    key = os.urandom(32)
    with pytest.raises(Malformed):
        decrypt(json.dumps({**json.loads(seal([for_rsa("RSA-OAEP", key)], key)), **changed}), [RSA])


@given(st.one_of(st.text(max_size=50), st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps)))
def test_any_text_is_malformed_or_not_for_us(text: str) -> None:
    with pytest.raises(Malformed):
        decrypt(text, [EC["P-256"]])


@given(
    st.dictionaries(
        st.sampled_from(
            ["protected", "header", "recipients", "encrypted_key", "iv", "ciphertext", "tag", "aad", "unprotected"]
        ),
        st.sampled_from(
            [
                url64(b'{"enc":"A256GCM","alg":"ECDH-ES","epk":{"crv":"P-256","kty":"EC","x":"AA","y":"AA"}}'),
                "AAAA",
                "",
                {},
                [],
                [{}],
            ]
        ),
    )
)
def test_any_document_ends_in_order(document: dict[str, Any]) -> None:
    with contextlib.suppress(Malformed):
        assert decrypt(json.dumps(document), [EC["P-256"], RSA]) is None


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
@pytest.mark.parametrize("key", [RSA, EC["P-521"]])
def test_keys_are_read_in_their_usual_forms(key: Any, encoding: Any, form: Any) -> None:
    content = key.private_bytes(encoding, form, serialization.NoEncryption())
    assert load_key(content).private_numbers() == key.private_numbers()


def test_what_is_no_private_key_without_a_password_is_refused() -> None:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = RSA.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"x"))
    public = RSA.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, serialization.NoEncryption())
    for content in (b"", b"no key", locked, public, other):
        with pytest.raises(ValueError, match="no private key"):
            load_key(content)
