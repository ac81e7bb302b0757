"""The child that checks sigstore signatures: a task on stdin, an answer on stdout, then it ends.

It holds no privileges while it reads what strangers wrote. Only here, and in what this imports, is `cryptography` loaded.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import Certificate, DuplicateExtension, InvalidVersion

from criollo.errors import Denied, Invalid
from criollo.linux import sandbox
from criollo.trust import certificates, rekor
from criollo.trust.fields import decoded
from criollo.trust.sigstore import MAX_REQUEST_BYTES, Answer, Doubtful, Outcome, Task

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MEMORY_BYTES: Final = 1 << 30
CPU_S: Final = 60
# What the library raises for input that is malformed or of a kind it does not know.
MALFORMED: Final = (ValueError, TypeError, UnsupportedAlgorithm, DuplicateExtension, InvalidVersion, OverflowError)


def main() -> None:
    """Answer one task and end."""
    sandbox.limit(memory_bytes=MEMORY_BYTES, files=16, file_bytes=0, cpu_s=CPU_S)
    if os.geteuid() == 0:
        sandbox.drop_privileges(())
    raw = sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
    if len(raw) > MAX_REQUEST_BYTES:
        answer = Answer(trouble=f"its signatures are over {MAX_REQUEST_BYTES} bytes")
    else:
        answer = work(msgspec.json.decode(raw, type=Task))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()


def work(task: Task) -> Answer:
    """The answer to a task."""
    try:
        keys = _keys(task.keys)
        logs = _log_keys(task.rekor) if task.rekor is not None else None
        roots = certificates.load(task.roots, what="certificate authority")
        between = certificates.load(task.intermediates, what="intermediate certificate")
    except Denied as error:
        return Answer(trouble=str(error))
    trust = _Trust(task, keys, logs, roots, between)
    return Answer(outcomes=tuple(trust.outcome(each) for each in task.signatures))


class _Trust:
    """What a task trusts, parsed."""

    def __init__(
        self,
        task: Task,
        keys: Sequence[PublicKey],
        logs: Sequence[ec.EllipticCurvePublicKey] | None,
        roots: Sequence[Certificate],
        between: Sequence[Certificate],
    ) -> None:
        self._task, self._keys, self._logs, self._roots, self._between = task, keys, logs, roots, between

    def outcome(self, given: Doubtful) -> Outcome:
        try:
            return Outcome(until=self._check(given))
        except (Denied, Invalid) as error:
            return Outcome(reason=str(error))
        except MALFORMED as error:
            return Outcome(reason=f"it is malformed ({type(error).__name__})")

    def _check(self, given: Doubtful) -> float:
        """Until when a signature is good; 0 for ever."""
        if given.signature is None:
            raise Denied("it has no annotation with a signature")
        signature = decoded(given.signature, "its signature")
        candidates, until = self._candidates(given, signature)
        if not any(_fits(key, signature, given.payload) for key in candidates):
            raise Denied("it is by no key that the policy has" if self._task.kind == "keys" else "it does not fit its text")
        return until

    def _candidates(self, given: Doubtful, signature: bytes) -> tuple[Sequence[PublicKey], float]:
        """The keys that may have made a signature."""
        if self._task.kind == "keys":
            return (self._keys if self._logs is None else self._logged(given, signature, self._logs)), 0
        if given.certificate is None:
            raise Denied("it has no certificate")
        leaf = certificates.load_one(given.certificate.encode())
        between = [*self._between, *certificates.load_chain(given.chain)]
        if self._task.kind == "pki":
            until = certificates.check_chain(leaf, between, self._roots, at=self._task.now)
            certificates.check_pki_subject(leaf, email=self._task.email, hostname=self._task.hostname)
            return [_known(leaf.public_key())], until
        if self._logs is None or given.log_entry is None:
            raise Denied("it has no entry of a transparency log")
        at = rekor.check(
            given.log_entry, self._logs, maker=given.certificate.encode(), signature=signature, payload=given.payload
        )
        certificates.check_chain(leaf, between, self._roots, at=at)
        certificates.check_fulcio_subject(leaf, issuer=self._task.issuer, email=self._task.email)
        return [_known(leaf.public_key())], 0

    def _logged(self, given: Doubtful, signature: bytes, logs: Sequence[ec.EllipticCurvePublicKey]) -> Sequence[PublicKey]:
        """The key with which a log saw the signature made."""
        if given.log_entry is None:
            raise Denied("it has no entry of a transparency log")
        reasons = []
        for key in self._keys:
            pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            try:
                rekor.check(given.log_entry, logs, maker=pem, signature=signature, payload=given.payload)
            except (Denied, Invalid) as error:
                reasons.append(str(error))
            else:
                return [key]
        raise Denied("; ".join(dict.fromkeys(reasons)))


def _fits(key: PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, payload)
    except InvalidSignature:
        return False
    return True


def _keys(pems: Sequence[bytes]) -> list[PublicKey]:
    found = []
    for at, pem in enumerate(pems):
        try:
            found.append(_known(serialization.load_pem_public_key(pem)))
        except MALFORMED as error:
            raise Denied(f"key {at + 1} of the policy is no public key in PEM ({type(error).__name__})") from error
    return found


def _log_keys(pems: Sequence[bytes]) -> list[ec.EllipticCurvePublicKey]:
    found = []
    for key in _keys(pems):
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Denied("a Rekor key of the policy is no ECDSA key")
        found.append(key)
    return found


def _known(key: object) -> PublicKey:
    if not isinstance(key, PublicKey):
        raise Denied(f"a key of kind {type(key).__name__} is not supported; RSA, ECDSA and Ed25519 are")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise Denied(f"an RSA key of {key.key_size} bits is too short")
    certificates.check_curve(key)
    return key
