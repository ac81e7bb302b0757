"""The requirements of a policy as typed values: what each demands, with which keys, for which name.

Source: containers-policy.json(5), section Policy Requirements.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.errors import Invalid
from criollo.linux import files
from criollo.oci.signature import SignatureKind
from criollo.trust.fields import an_object, decoded, exactly, only, text, texts
from criollo.trust.identity import SignedIdentity, parse_identity

ACCEPT: Final = "insecureAcceptAnything"
REJECT: Final = "reject"
SIGNED_BY: Final = "signedBy"
SIGNED_BASE_LAYER: Final = "signedBaseLayer"
SIGSTORE_SIGNED: Final = "sigstoreSigned"
MAX_KEY_BYTES: Final = 1 << 20
MAX_KEYS: Final = 64
_GPG_KEYS: Final = "GPGKeys"
_KEY_TYPES: Final = (_GPG_KEYS, "signedByGPGKeys", "X509Certificates", "signedByX509CAs")


class Sources(msgspec.Struct, frozen=True):
    """Where keys or certificates are: files, or bytes that the policy itself has."""

    paths: tuple[str, ...] = ()
    blobs: tuple[bytes, ...] = ()

    def read(self) -> list[bytes]:
        """All of them; blocking.

        Raises:
            Invalid: a file is too large or no regular file.
            OSError: it cannot be read.
        """
        return [*self.blobs, *(files.read_limited(Path(path), MAX_KEY_BYTES) for path in self.paths)]


class Fulcio(msgspec.Struct, frozen=True):
    """Certificates of a certificate authority for people: who it must have been, by which issuer's word."""

    authorities: Sources
    issuer: str
    email: str


class Pki(msgspec.Struct, frozen=True):
    """Certificates of an own certificate authority."""

    roots: Sources
    intermediates: Sources
    email: str
    hostname: str


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One demand on an image. Of the keys only those exist that its type has."""

    type: str
    key_type: str = _GPG_KEYS
    keys: Sources = Sources()
    fulcio: Fulcio | None = None
    pki: Pki | None = None
    rekor: Sources | None = None
    identity: SignedIdentity = SignedIdentity()

    @property
    def signed_with(self) -> SignatureKind | None:
        """The kind of signature that it needs, if it needs one."""
        return {SIGNED_BY: SignatureKind.SIMPLE, SIGSTORE_SIGNED: SignatureKind.SIGSTORE}.get(self.type)

    @property
    def summary(self) -> str:
        """What it demands, for people."""
        if self.signed_with is None:
            return self.type
        makers = "fulcio" if self.fulcio else "pki" if self.pki else "keys"
        log = " and rekor" if self.rekor else ""
        return f"{self.type} ({makers}{log}, {self.identity.kind})"

    @property
    def is_verifiable(self) -> bool:
        """Whether it can be met at all by a signature."""
        return self.signed_with is not None and self.key_type == _GPG_KEYS

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it depends on."""
        sources = [self.keys, *([self.rekor] if self.rekor else [])]
        sources += [self.fulcio.authorities] if self.fulcio else []
        sources += [self.pki.roots, self.pki.intermediates] if self.pki else []
        return tuple(path for each in sources for path in each.paths)


def parse_requirements(value: object, where: str) -> tuple[Requirement, ...]:
    """The requirements of one scope.

    Raises:
        Invalid: anything in them is unknown, missing or of the wrong type.
    """
    if not isinstance(value, list) or not value:
        raise Invalid(where, value, "a list of at least one requirement")
    return tuple(_requirement(item, f"{where}[{at}]") for at, item in enumerate(value))


def _requirement(value: object, where: str) -> Requirement:
    fields = an_object(value, where)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in _PARSERS:
        raise Invalid(f"{where}.type", kind, f"one of {', '.join(_PARSERS)}")
    return _PARSERS[kind](fields, where)


def _plain(fields: Mapping[str, Any], where: str) -> Requirement:
    only(fields, {"type"}, where)
    return Requirement(type=fields["type"])


def _base_layer(fields: Mapping[str, Any], where: str) -> Requirement:
    exactly(fields, {"type", "baseLayerIdentity"}, where)
    return Requirement(
        type=SIGNED_BASE_LAYER, identity=parse_identity(fields["baseLayerIdentity"], f"{where}.baseLayerIdentity")
    )


def _signed_by(fields: Mapping[str, Any], where: str) -> Requirement:
    only(fields, {"type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"}, where)
    key_type = fields.get("keyType")
    if key_type not in _KEY_TYPES:
        raise Invalid(f"{where}.keyType", key_type, f"one of {', '.join(_KEY_TYPES)}")
    keys = _sources(fields, ("keyPath", "keyPaths", "keyData"), where)
    if keys is None:
        raise Invalid(where, "no key", "exactly one of keyPath, keyPaths and keyData")
    return Requirement(type=SIGNED_BY, key_type=key_type, keys=keys, identity=_identity(fields, where))


def _sigstore_signed(fields: Mapping[str, Any], where: str) -> Requirement:
    key_names, rekor_names = ("keyPath", "keyPaths", "keyData", "keyDatas"), _REKOR
    only(fields, {"type", "signedIdentity", "fulcio", "pki", *key_names, *rekor_names}, where)
    keys = _sources(fields, key_names, where)
    rekor = _sources(fields, rekor_names, where)
    fulcio = _fulcio(fields["fulcio"], f"{where}.fulcio") if "fulcio" in fields else None
    pki = _pki(fields["pki"], f"{where}.pki") if "pki" in fields else None
    if sum(each is not None for each in (keys, fulcio, pki)) != 1:
        raise Invalid(where, sorted(fields), f"exactly one of {', '.join(key_names)}, fulcio and pki")
    if fulcio is not None and rekor is None:
        raise Invalid(where, "fulcio without a Rekor key", f"one of {', '.join(rekor_names)} beside fulcio")
    if pki is not None and rekor is not None:
        raise Invalid(where, "pki with a Rekor key", "pki alone")
    return Requirement(
        type=SIGSTORE_SIGNED,
        keys=keys or Sources(),
        fulcio=fulcio,
        pki=pki,
        rekor=rekor,
        identity=_identity(fields, where),
    )


def _fulcio(value: object, where: str) -> Fulcio:
    fields = an_object(value, where)
    only(fields, {"caPath", "caData", "oidcIssuer", "subjectEmail"}, where)
    authorities = _sources(fields, ("caPath", "caData"), where)
    if authorities is None:
        raise Invalid(where, "no authority", "exactly one of caPath and caData")
    issuer, email = (text(fields.get(key), f"{where}.{key}") for key in ("oidcIssuer", "subjectEmail"))
    return Fulcio(authorities, issuer, email)


def _pki(value: object, where: str) -> Pki:
    fields = an_object(value, where)
    names = {"caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData", "subjectEmail", "subjectHostname"}
    only(fields, names, where)
    roots = _sources(fields, ("caRootsPath", "caRootsData"), where)
    if roots is None:
        raise Invalid(where, "no root", "exactly one of caRootsPath and caRootsData")
    email, hostname = (
        text(fields[key], f"{where}.{key}") if key in fields else "" for key in ("subjectEmail", "subjectHostname")
    )
    if not email and not hostname:
        raise Invalid(where, "no subject", "subjectEmail, subjectHostname or both")
    between = _sources(fields, ("caIntermediatesPath", "caIntermediatesData"), where)
    return Pki(roots, between or Sources(), email, hostname)


def _sources(fields: Mapping[str, Any], names: Sequence[str], where: str) -> Sources | None:
    """The one of the keys `names` that is there: a path, a list of paths, base64, or a list of it."""
    given = [name for name in names if name in fields]
    if not given:
        return None
    if len(given) > 1:
        raise Invalid(where, " and ".join(given), f"only one of {', '.join(names)}")
    name, value, place = given[0], fields[given[0]], f"{where}.{given[0]}"
    if name.endswith("Paths"):
        found = Sources(paths=texts(value, place))
    elif name.endswith("Path"):
        found = Sources(paths=(text(value, place),))
    elif name.endswith("Datas"):
        found = Sources(blobs=tuple(decoded(item, f"{place}[{at}]") for at, item in enumerate(texts(value, place))))
    else:
        found = Sources(blobs=(decoded(value, place),))
    if len(found.paths) + len(found.blobs) > MAX_KEYS:
        raise Invalid(place, f"{len(value)} keys", f"at most {MAX_KEYS}")
    return found


def _identity(fields: Mapping[str, Any], where: str) -> SignedIdentity:
    if "signedIdentity" not in fields:
        return SignedIdentity()
    return parse_identity(fields["signedIdentity"], f"{where}.signedIdentity")


_REKOR: Final = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_PARSERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Requirement]]] = {
    ACCEPT: _plain,
    REJECT: _plain,
    SIGNED_BY: _signed_by,
    SIGNED_BASE_LAYER: _base_layer,
    SIGSTORE_SIGNED: _sigstore_signed,
}
