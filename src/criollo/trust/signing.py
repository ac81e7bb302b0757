"""Making signatures: with a private key as sigstore does, or with a key of the user's gpg. Only `kpod sign` does this.

No private key comes near the daemon: one in a file is read by this process, one of gpg stays with its agent.

Source: cosign's SIGNATURE_SPEC; containers/image, docs/containers-signature.5.md.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from criollo import __version__
from criollo.aio import process
from criollo.errors import Invalid, ToolFailed, explain
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.signature import SIGSTORE_TYPE, Signature, SignatureKind, simple
from criollo.trust.payload import make_payload
from criollo.trust.sigstore import SIGNATURE_ANNOTATION

CREATOR: Final = f"criollo {__version__}"
_MAX_KEY_BYTES: Final = 1 << 20
_GPG_LIMIT_S: Final = 300.0  # somebody may be typing a passphrase
_PASSED_ON: Final = ("HOME", "GNUPGHOME", "GPG_TTY", "TERM", "DISPLAY", "XDG_RUNTIME_DIR", "LC_ALL", "LANG")


def sign_with_key(key_file: Path, passphrase: bytes | None, digest: Digest, name: str, *, now: int) -> Signature:
    """A sigstore signature by a private key in PEM: ECDSA, RSA or Ed25519.

    Raises:
        Invalid: the file is no such key, or the passphrase is not right.
        HostFailed: it cannot be read.
    """
    pem = _read(key_file)
    payload = make_payload(SignatureKind.SIGSTORE, digest, name, creator=CREATOR, now=now)
    said = base64.b64encode(_raw_signature(pem, passphrase, payload, str(key_file))).decode()
    return Signature(
        kind=SignatureKind.SIGSTORE, payload=payload, media_type=SIGSTORE_TYPE, annotations={SIGNATURE_ANNOTATION: said}
    )


def is_encrypted(key_file: Path) -> bool:
    """Whether a key wants a passphrase."""
    return b"ENCRYPTED" in _read(key_file)


def _read(key_file: Path) -> bytes:
    with explain(f"read the key {key_file}"):
        try:
            return files.read_limited(key_file, _MAX_KEY_BYTES)
        except FileNotFoundError:
            raise Invalid("--key", str(key_file), "a file that exists") from None


def _raw_signature(pem: bytes, passphrase: bytes | None, text: bytes, where: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    if b"SIGSTORE PRIVATE KEY" in pem or b"COSIGN PRIVATE KEY" in pem:
        raise Invalid("--key", where, "a key in PKCS 8; cosign's own encryption is not read here")
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid("--key", where, f"a private key in PEM, with the right passphrase ({error})") from None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(text, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text)
    raise Invalid("--key", where, "a key for ECDSA, RSA from 2048 bits, or Ed25519")


async def sign_with_gpg(
    user: str, passphrase_file: Path | None, digest: Digest, name: str, *, now: int, environ: Mapping[str, str] = os.environ
) -> Signature:
    """A simple signature by a key of the caller's gpg, which asks for a passphrase as it is used to.

    Raises:
        Invalid: `user` looks like an option.
        ToolFailed, TimedOut: gpg has no such key, or does not sign with it.
    """
    if not user or user.startswith("-"):
        raise Invalid("--sign-by", user, "a key of gpg: a fingerprint or an e-mail address")
    argv = ["gpg", "--batch", "--no-tty", "--yes", "--local-user", user, "--output", "-"]
    if passphrase_file is not None:
        argv += ["--pinentry-mode", "loopback", "--passphrase-file", os.path.abspath(passphrase_file)]
    payload = make_payload(SignatureKind.SIMPLE, digest, name, creator=CREATOR, now=now)
    env = {**process.MINIMAL_ENV, **{word: environ[word] for word in _PASSED_ON if word in environ}}
    what = f"cannot sign with the key {user}"
    ended = await process.run(process.Program([*argv, "--sign"], env), what=what, timeout_s=_GPG_LIMIT_S, stdin=payload)
    if not ended.stdout:
        raise ToolFailed(what, argv, ended.status, ended.stderr_tail() or "gpg wrote nothing")
    return simple(ended.stdout)
