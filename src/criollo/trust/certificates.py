"""Certificates of code signing: from a leaf to a root that the policy trusts, and whose it is.

The library checks signatures; the way upwards is walked here, because its own walk knows servers and clients of TLS alone.
What a certificate demands and we do not know (another critical extension, name constraints) refuses it.

Source: RFC 5280, section 6; fulcio's certificate-specification; containers-policy.json(5).
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from criollo.errors import Denied

MAX_CERTIFICATES: Final = 64
_MAX_DEPTH: Final = 8
_MAX_TRIES: Final = 100  # signatures checked on the way up; certificates may be made so that the ways multiply
_HANDLED: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,  # any will do: nobody here demands one
    }
)
_CURVES: Final = (ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)  # NIST's, as other verifiers know them
_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")  # the text itself
_ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")  # as a DER string
_DER_STRINGS: Final = (0x0C, 0x13, 0x16)  # UTF8String, PrintableString, IA5String


def load(pems: Sequence[bytes], *, what: str) -> list[Certificate]:
    """All certificates of the policy's own files.

    Raises:
        Denied: one of them has none.
    """
    found: list[Certificate] = []
    for pem in pems:
        try:
            found += x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise Denied(f"a {what} of the policy is no certificate in PEM") from error
    return found


def load_one(pem: bytes) -> Certificate:
    """The one certificate of a signature."""
    found = x509.load_pem_x509_certificates(pem)
    if len(found) != 1:
        raise Denied(f"it has {len(found)} certificates where one belongs")
    return found[0]


def load_chain(text: str | None) -> list[Certificate]:
    """The intermediate certificates that come with a signature: all but the last, which is the root, and not believed."""
    if not text or text.isspace():
        return []
    found = x509.load_pem_x509_certificates(text.encode())
    if len(found) > MAX_CERTIFICATES:
        raise Denied(f"it has {len(found)} certificates; at most {MAX_CERTIFICATES} are looked at")
    return found[:-1]


def check_chain(leaf: Certificate, between: Sequence[Certificate], roots: Sequence[Certificate], *, at: float) -> float:
    """That a root vouches for a leaf at a moment (seconds since the epoch); returns when the way there ends to be valid.

    Raises:
        Denied: none does.
    """
    moment = datetime.fromtimestamp(at, UTC)
    _check(leaf, moment)
    walk = _Walk(between, roots, moment)
    ends = walk.up(leaf, 0)
    if ends is None:
        raise Denied("no authority of the policy vouches for its certificate")
    return min(ends, leaf.not_valid_after_utc.timestamp())


class _Walk:
    """The way from a certificate to a root, depth first."""

    def __init__(self, between: Sequence[Certificate], roots: Sequence[Certificate], moment: datetime) -> None:
        self._between, self._roots, self._moment = between, roots, moment
        self._tries = 0

    def up(self, certificate: Certificate, below: int) -> float | None:
        """When the way from here to a root ends to be valid; None if there is no way. `below` counts the intermediates."""
        if certificate in self._roots:
            return certificate.not_valid_after_utc.timestamp()
        if below >= _MAX_DEPTH:
            return None
        for issuer in (*self._roots, *self._between):
            if issuer.subject != certificate.issuer or not self._signed(certificate, issuer, below):
                continue
            if issuer in self._roots:
                return issuer.not_valid_after_utc.timestamp()
            further = self.up(issuer, below + 1)
            if further is not None:
                return min(further, issuer.not_valid_after_utc.timestamp())
        return None

    def _signed(self, certificate: Certificate, issuer: Certificate, below: int) -> bool:
        self._tries += 1
        if self._tries > _MAX_TRIES:
            raise Denied("its certificates are too many ways to look at")
        try:
            _check(issuer, self._moment)
            _check_authority(issuer, below)
            certificate.verify_directly_issued_by(issuer)
        except (Denied, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True


def _check(certificate: Certificate, moment: datetime) -> None:
    """What holds for every certificate on the way."""
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise Denied(f"its certificate was not valid at {moment:%Y-%m-%d %H:%M:%S} UTC")
    if isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5):
        raise Denied("its certificate is signed with a digest that is broken")
    check_curve(certificate.public_key())
    for extension in certificate.extensions:
        known = extension.oid in _HANDLED
        if (extension.critical and not known) or extension.oid == ExtensionOID.NAME_CONSTRAINTS:
            raise Denied(f"its certificate has an extension that is not supported ({extension.oid.dotted_string})")
        if isinstance(extension.value, x509.ExtendedKeyUsage) and not {
            ExtendedKeyUsageOID.CODE_SIGNING,
            ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        } & set(extension.value):
            raise Denied("its certificate is not for code signing")


def check_curve(key: object) -> None:
    """Refuse a key on a curve that other verifiers do not know; keys of other kinds pass."""
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _CURVES):
        raise Denied(f"a key on the curve {key.curve.name} is not supported; P-256, P-384 and P-521 are")


def _check_authority(certificate: Certificate, below: int) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise Denied("an issuer is no certificate authority") from None
    if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
        raise Denied("an issuer is no certificate authority, or not for so long a way")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise Denied("an issuer must not sign certificates")


def check_fulcio_subject(leaf: Certificate, *, issuer: str, email: str) -> None:
    """That a certificate is for a person, by the word of an OIDC issuer.

    Raises:
        Denied: for somebody else, or by somebody else's word.
    """
    said = _oidc_issuer(leaf)
    if said != issuer:
        raise Denied(f"its certificate is by the word of {said[:200]!r}, the policy wants {issuer!r}")
    _check_email(leaf, email)


def check_pki_subject(leaf: Certificate, *, email: str, hostname: str) -> None:
    """That a certificate is for an address and a host; empty ones do not matter.

    Raises:
        Denied: it is not.
    """
    if email:
        _check_email(leaf, email)
    if hostname and not _is_for_host(leaf, hostname):
        raise Denied(f"its certificate is not for the host {hostname!r}")


def _check_email(leaf: Certificate, email: str) -> None:
    found = _names(leaf, x509.RFC822Name)
    if email not in found:
        raise Denied(f"its certificate is for {', '.join(map(repr, found))[:200] or 'nobody'}, the policy wants {email!r}")


def _names(leaf: Certificate, kind: type[x509.RFC822Name] | type[x509.DNSName]) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name) for name in names.get_values_for_type(kind)]


def _is_for_host(leaf: Certificate, hostname: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        address = ipaddress.ip_address(hostname.strip("[]"))
    except ValueError:
        wanted = hostname.lower().rstrip(".")
        return any(_fits_host(name.lower(), wanted) for name in _names(leaf, x509.DNSName))
    return address in names.get_values_for_type(x509.IPAddress)


def _fits_host(pattern: str, host: str) -> bool:
    """Whether a name fits; a star stands for the whole first word."""
    if not pattern.startswith("*."):
        return pattern == host
    first, dot, rest = host.partition(".")
    return bool(first and dot) and rest == pattern[2:]


def _oidc_issuer(leaf: Certificate) -> str:
    found = set()
    for extension in leaf.extensions:
        if extension.oid == _ISSUER and isinstance(extension.value, x509.UnrecognizedExtension):
            found.add(extension.value.value.decode())
        if extension.oid == _ISSUER_V2 and isinstance(extension.value, x509.UnrecognizedExtension):
            found.add(_der_string(extension.value.value))
    if len(found) != 1:
        raise Denied("its certificate names no OIDC issuer" if not found else "its certificate names two OIDC issuers")
    return found.pop()


def _der_string(der: bytes) -> str:
    """The text of exactly one DER string."""
    if len(der) >= 2 and der[0] in _DER_STRINGS:
        length, start = der[1], 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(der[2 : 2 + count], "big"), 2 + count
            if count not in (1, 2) or length < 0x80:
                raise Denied("its certificate names an OIDC issuer in a form that is not DER")
        if len(der) == start + length:
            return der[start:].decode()
    raise Denied("its certificate names an OIDC issuer in a form that is not DER")
