"""Which name a signature must be for: the `signedIdentity` of a requirement.

A reference with tag and digest counts as the digest alone, as podman and CRI-O take it: the digest says what is run.

Source: containers-policy.json(5), section signedIdentity.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from criollo.errors import Invalid
from criollo.oci.reference import Reference
from criollo.trust.fields import exactly, text


class Kind(StrEnum):
    """The ways in which the name in a signature may be compared."""

    EXACT = "matchExact"
    REPO_DIGEST_OR_EXACT = "matchRepoDigestOrExact"
    REPOSITORY = "matchRepository"
    EXACT_REFERENCE = "exactReference"
    EXACT_REPOSITORY = "exactRepository"
    REMAP = "remapIdentity"


_KEYS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.EXACT: (),
    Kind.REPO_DIGEST_OR_EXACT: (),
    Kind.REPOSITORY: (),
    Kind.EXACT_REFERENCE: ("dockerReference",),
    Kind.EXACT_REPOSITORY: ("dockerRepository",),
    Kind.REMAP: ("prefix", "signedPrefix"),
}


class SignedIdentity(msgspec.Struct, frozen=True):
    """One way of comparing, with its values in the order of the page."""

    kind: Kind = Kind.REPO_DIGEST_OR_EXACT
    values: tuple[str, ...] = ()

    @property
    def names_itself(self) -> bool:
        """Whether it says by itself which name it wants, so that an image without one may be signed for it."""
        return self.kind in (Kind.EXACT_REFERENCE, Kind.EXACT_REPOSITORY)

    def fits(self, reference: Reference | None, signed: str) -> bool:
        """Whether a signature for the name `signed` may vouch for `reference`; None is an image of a file, without a name."""
        found = _parsed(signed)
        if found is None:
            return False
        named, is_bare = found
        if self.kind is Kind.EXACT_REFERENCE:
            return not is_bare and named == Reference.parse(self.values[0])
        if self.kind is Kind.EXACT_REPOSITORY:
            return named.name == Reference.parse(self.values[0]).name
        return reference is not None and self._fits_name(reference, named, is_bare=is_bare)

    def _fits_name(self, reference: Reference, named: Reference, *, is_bare: bool) -> bool:
        intended = reference if reference.digest is None else reference.with_digest(reference.digest)
        match self.kind:
            case Kind.EXACT:
                return not is_bare and named == intended
            case Kind.REPO_DIGEST_OR_EXACT:
                return not is_bare and _repo_digest_or_exact(intended, named)
            case Kind.REPOSITORY:
                return named.name == intended.name
            case Kind.REMAP:
                moved = _remapped(intended, *self.values)
                return moved is not None and not is_bare and _repo_digest_or_exact(moved, named)
            case _:
                raise AssertionError(f"{self.kind} compares no name of an image")


def parse_identity(value: object, where: str) -> SignedIdentity:
    """The `signedIdentity` of a requirement.

    Raises:
        Invalid: it is of no kind that exists, or its values are no names.
    """
    if not isinstance(value, dict):
        raise Invalid(where, type(value).__name__, "an object")
    try:
        kind = Kind(str(value.get("type")))
    except ValueError:
        raise Invalid(f"{where}.type", value.get("type"), f"one of {', '.join(Kind)}") from None
    keys = _KEYS[kind]
    exactly(value, {"type", *keys}, where)
    values = tuple(text(value[key], f"{where}.{key}") for key in keys)
    _check(kind, value, where)
    return SignedIdentity(kind, values)


def _check(kind: Kind, value: Mapping[str, Any], where: str) -> None:
    for key in _KEYS[kind]:
        given = value[key]
        if kind is Kind.REMAP:
            _check_prefix(given, f"{where}.{key}")
            continue
        found = _parsed(given)
        if found is None or (kind is Kind.EXACT_REFERENCE and found[1]):
            raise Invalid(f"{where}.{key}", given, "an image name" + (" with its tag or digest" * (key == "dockerReference")))


def _check_prefix(prefix: str, where: str) -> None:
    """A host, or a name below one: what may stand at the beginning of an image name."""
    named = f"{prefix}/x/y"  # not one word: below docker.io that is another name, of `library`
    found = _parsed(named)
    if found is None or found[0].name != named:
        raise Invalid(where, prefix, "a registry host, or a name below one, without tag and digest")


def _parsed(signed: str) -> tuple[Reference, bool] | None:
    """The reference that a name means, and whether it has neither tag nor digest."""
    try:
        reference = Reference.parse(signed)
    except Invalid:
        return None
    is_bare = "@" not in signed and ":" not in signed.rpartition("/")[2]
    return reference, is_bare


def _repo_digest_or_exact(intended: Reference, named: Reference) -> bool:
    return named.name == intended.name if intended.digest is not None else named == intended


def _remapped(reference: Reference, prefix: str, signed_prefix: str) -> Reference | None:
    """The reference with its beginning exchanged; unchanged if it begins otherwise, None if no name in full comes of it."""
    name = reference.name
    if name != prefix and not name.startswith(prefix + "/"):
        return reference
    moved = signed_prefix + str(reference)[len(prefix) :]
    found = _parsed(moved)
    return found[0] if found is not None and str(found[0]) == moved else None
