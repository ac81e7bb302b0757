"""What `kpod sign` makes is what the verifier reads: payloads and raw signatures by every kind of key."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from support.signing import SigstoreKey

from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.signature import SignatureKind, parse_blob
from criollo.trust import verifying
from criollo.trust.payload import make_payload, parse_payload
from criollo.trust.signing import is_encrypted, sign_with_key
from criollo.trust.sigstore import SIGNATURE_ANNOTATION, Doubtful, Task

DIGEST = Digest.of(b"manifest")
KEYS = {"ecdsa": SigstoreKey.ecdsa(), "rsa": SigstoreKey.rsa(), "ed25519": SigstoreKey.ed25519()}


def write(key: SigstoreKey, path: Path, passphrase: bytes = b"") -> Path:
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.write_bytes(key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    return path


@pytest.mark.parametrize("kind", KEYS)
def test_the_verifier_takes_it(tmp_path: Path, kind: str) -> None:
    signature = sign_with_key(write(KEYS[kind], tmp_path / "key"), None, DIGEST, "r.example/a:v1", now=1_700_000_000)
    said = Doubtful(payload=signature.payload, signature=signature.annotations[SIGNATURE_ANNOTATION])
    (right,) = verifying.work(Task(signatures=(said,), now=1_700_000_001, keys=(KEYS[kind].pem,))).outcomes
    (wrong,) = verifying.work(Task(signatures=(said,), now=1_700_000_001, keys=(SigstoreKey.ecdsa().pem,))).outcomes
    assert right.reason == ""
    assert wrong.reason != ""


def test_it_survives_being_stored(tmp_path: Path) -> None:
    signature = sign_with_key(write(KEYS["ecdsa"], tmp_path / "key"), None, DIGEST, "r.example/a:v1", now=1)
    assert parse_blob(signature.to_blob()) == signature


@given(st.sampled_from(SignatureKind), st.text(min_size=1, max_size=200), st.integers(0, 1 << 40))
def test_a_payload_says_what_it_was_made_of(kind: SignatureKind, name: str, now: int) -> None:
    claim = parse_payload(make_payload(kind, DIGEST, name, creator="test", now=now), kind)
    assert claim == (DIGEST, name)


def test_a_passphrase_is_needed_where_the_key_has_one(tmp_path: Path) -> None:
    hidden, open_key = write(KEYS["ecdsa"], tmp_path / "hidden", b"word"), write(KEYS["ecdsa"], tmp_path / "open")
    assert (is_encrypted(hidden), is_encrypted(open_key)) == (True, False)
    for passphrase in (None, b"other"):
        with pytest.raises(Invalid, match="passphrase"):
            sign_with_key(hidden, passphrase, DIGEST, "r.example/a:v1", now=1)
    assert base64.b64decode(sign_with_key(hidden, b"word", DIGEST, "r.example/a:v1", now=1).annotations[SIGNATURE_ANNOTATION])


@pytest.mark.parametrize("content", ["", "nothing", "-----BEGIN PRIVATE KEY-----\n%%%\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(Invalid, match="a private key in PEM"):
        sign_with_key(tmp_path / "key", None, DIGEST, "r.example/a:v1", now=1)


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="2048"):
        sign_with_key(write(SigstoreKey.rsa(1024), tmp_path / "key"), None, DIGEST, "r.example/a:v1", now=1)
