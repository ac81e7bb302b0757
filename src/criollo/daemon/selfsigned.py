"""A certificate that is signed by itself, for a server whose administrator names files that do not exist.

Runs as a child, because `cryptography` takes 14 MiB: `python -I -m criollo.daemon.selfsigned CERT KEY NAME…`.
"""

import datetime
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography import x509

DAYS: Final = 365


def main(argv: Sequence[str]) -> int:
    """Write both files, the key first and for root alone; neither may be there. Both or none: one alone is of no use."""
    cert, key, *names = argv
    written: list[Path] = []
    try:
        for path, content, mode in zip((Path(key), Path(cert)), make(names)[::-1], (0o600, 0o644), strict=True):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            written.append(path)
            with open(fd, "wb") as file:
                file.write(content)
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return 0


def make(names: Sequence[str]) -> tuple[bytes, bytes]:
    """Certificate and key in PEM, for servers of these names and addresses."""
    from cryptography import x509  # 14 MiB: see the module
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    cert = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    kind = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    return cert.public_bytes(serialization.Encoding.PEM), private


def _alternative(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
