"""Keys and signatures made on the spot: GPG as people use it, sigstore as cosign writes it, a Fulcio and a Rekor of our own.

ring = Gpg(directory); fingerprint = ring.make_key("a@example.com"); message = ring.sign(payload(...), fingerprint)
key = SigstoreKey.ecdsa(); attach(registry, "team/app", digest, [key.sign(payload(..., SIGSTORE))])
"""

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.images import OCI_CONFIG, OCI_MANIFEST, Target, digest_of, push_blob, push_manifest

SIMPLE = "atomic container signature"
SIGSTORE = "cosign container image signature"
SIGSTORE_LAYER = "application/vnd.dev.cosign.simplesigning.v1+json"


def payload(digest: str, name: str, kind: str = SIMPLE, **more: Any) -> bytes:
    """The text that a signature is over."""
    critical = {"type": kind, "image": {"docker-manifest-digest": digest}, "identity": {"docker-reference": name}}
    return json.dumps({"critical": critical, "optional": {"creator": "test", "timestamp": 1_700_000_000}, **more}).encode()


class Gpg:
    """A GPG home of its own; its agent ends with `close`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def make_key(self, user: str, *, at: str = "", expires: str = "never") -> str:
        """A new key's fingerprint; `at` is when it is made (20200101T000000)."""
        self._run([*_clock(at), "--passphrase", "", "--quick-gen-key", user, "ed25519", "sign", expires])
        listed = self._run(["--with-colons", "--list-keys", f"={user}"]).decode()
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def export(self, *fingerprints: str, armor: bool = False) -> bytes:
        return self._run([*(["--armor"] if armor else []), "--export", *fingerprints])

    def sign(self, text: bytes, *fingerprints: str, at: str = "", options: Sequence[str] = ()) -> bytes:
        """A signed message, by all the keys."""
        users = [word for fingerprint in fingerprints for word in ("--local-user", fingerprint)]
        return self._run([*_clock(at), *options, *users, "--output", "-", "--sign"], text)

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key, with the certificate that gpg wrote when it made it."""
        text = (self.home / f"openpgp-revocs.d/{fingerprint}.rev").read_text()
        self._run(["--import"], text.replace(":-----BEGIN", "-----BEGIN").encode())

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=True, capture_output=True)

    def _run(self, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--no-tty", "--yes", *arguments]
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def _clock(at: str) -> list[str]:
    return ["--faked-system-time", f"{at}!"] if at else []


def put_signature(lookaside: Path, repository: str, digest: str, message: bytes, *, number: int = 1) -> Path:
    """Write a signature to where a lookaside has it."""
    path = lookaside / f"{repository}@{digest.replace(':', '=')}" / f"signature-{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(message)
    return path


# sigstore -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signed:
    """A payload with the annotations that its layer gets."""

    payload: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = SIGSTORE_LAYER


@dataclass(frozen=True)
class SigstoreKey:
    """A private key of any kind that sigstore knows."""

    private: Any

    @classmethod
    def ecdsa(cls) -> "SigstoreKey":
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def rsa(cls, bits: int = 2048) -> "SigstoreKey":
        return cls(rsa.generate_private_key(65537, bits))

    @classmethod
    def ed25519(cls) -> "SigstoreKey":
        return cls(ed25519.Ed25519PrivateKey.generate())

    @property
    def pem(self) -> bytes:
        return bytes(
            self.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def raw(self, text: bytes) -> bytes:
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(text, ec.ECDSA(hashes.SHA256()))
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return bytes(self.private.sign(text))

    def sign(self, text: bytes, *, over: bytes | None = None, **annotations: str) -> Signed:
        """A signature of `text`; `over` is what is signed instead."""
        signature = base64.b64encode(self.raw(text if over is None else over)).decode()
        return Signed(text, {"dev.cosignproject.cosign/signature": signature, **annotations})


def attach(registry: Target, repository: str, digest: str, signatures: Sequence[Signed]) -> None:
    """Push signatures to where cosign puts them."""
    layers = [
        {
            "mediaType": each.media_type,
            "digest": push_blob(registry, repository, each.payload),
            "size": len(each.payload),
            "annotations": dict(each.annotations),
        }
        for each in signatures
    ]
    diff_ids = [digest_of(each.payload) for each in signatures]
    config = json.dumps({"os": "", "architecture": "", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    described = {"mediaType": OCI_CONFIG, "digest": push_blob(registry, repository, config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": layers}
    push_manifest(registry, repository, f"{digest.replace(':', '-')}.sig", OCI_MANIFEST, json.dumps(manifest).encode())


class Authority:
    """A certificate authority for code signing, with an intermediate if wanted."""

    def __init__(self, name: str = "root", *, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._make(name, self.key.public_key(), name, self.key, ca=True)

    @property
    def pem(self) -> bytes:
        return pem_of(self.certificate)

    def intermediate(self, name: str = "between", **more: Any) -> "Authority":
        made = object.__new__(Authority)
        made.key = ec.generate_private_key(ec.SECP256R1())
        made.certificate = self._make(name, made.key.public_key(), self._name, self.key, **{"ca": True, **more})
        return made

    def issue(self, key: SigstoreKey, **more: Any) -> x509.Certificate:
        """A leaf; `email`, `hosts`, `issuer` (OIDC), `days`, `usage`, `extra` say what it holds."""
        return self._make("", key.private.public_key(), self._name, self.key, **more)

    @property
    def _name(self) -> str:
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def _make(
        self,
        name: str,
        public: Any,
        issuer_name: str,
        signer: ec.EllipticCurvePrivateKey,
        *,
        ca: bool = False,
        path_length: int | None = None,
        email: str = "",
        hosts: Sequence[str] = (),
        issuer: str = "",
        start: datetime | None = None,
        days: float = 1,
        usage: Any = ExtendedKeyUsageOID.CODE_SIGNING,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        begin = start or datetime.now(UTC) - timedelta(hours=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(issuer_name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
        if not ca and usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        names: list[x509.GeneralName] = [x509.RFC822Name(email)] if email else []
        names += [x509.DNSName(host) for host in hosts]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        if issuer:
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, issuer.encode()), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


@dataclass(frozen=True)
class Log:
    """A transparency log: it signs that it has seen a signature."""

    key: SigstoreKey

    def entry(self, *, maker: bytes, signature: bytes, text: bytes, at: float, **change: Any) -> str:
        """The bundle annotation; `change` replaces members of the record."""
        record = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(text).hexdigest()}},
                "signature": {
                    "content": base64.b64encode(signature).decode(),
                    "publicKey": {"content": base64.b64encode(maker).decode()},
                },
            },
            **change,
        }
        stated = {
            "body": base64.b64encode(json.dumps(record).encode()).decode(),
            "integratedTime": int(at),
            "logID": "c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d",
            "logIndex": 7,
        }
        signed = self.key.raw(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode())
        return json.dumps({"SignedEntryTimestamp": base64.b64encode(signed).decode(), "Payload": stated})


def policy(*requirements: Mapping[str, Any], **scopes: Any) -> dict[str, Any]:
    """A policy.json with a default and scopes of registries."""
    return {"default": list(requirements), "transports": {"docker": scopes}}


def write_json(path: Path, value: object) -> Path:
    """Replace a file as an administrator's tools do: all at once."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(value))
    os.replace(fresh, path)
    return path
