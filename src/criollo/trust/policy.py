"""policy.json: which images may be used, by where they come from.

The most specific scope that matches decides alone: the reference itself, its repository, each namespace above, the host, then
`*.` of each domain above the host, then the transport's default, then the global one. Reading is strict: a policy with
anything unknown or twice in it is refused whole, since a misspelt rule would silently allow. Signatures are not verified yet:
a scope that demands one denies.

Source: containers-policy.json(5).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from criollo.errors import Denied, Invalid, explain
from criollo.linux import files
from criollo.oci import document
from criollo.oci.reference import Reference

SYSTEM_FILE: Final = Path("/etc/containers/policy.json")
_MAX_FILE_BYTES: Final = 4 << 20
_TRANSPORT: Final = "docker"
ACCEPT: Final = "insecureAcceptAnything"
REJECT: Final = "reject"
_IDENTITY: Final = frozenset({"signedIdentity"})
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    ACCEPT: frozenset(),
    REJECT: frozenset(),
    "signedBy": frozenset({"keyType", "keyPath", "keyPaths", "keyData"}) | _IDENTITY,
    "signedBaseLayer": frozenset({"baseLayerIdentity"}),
    "sigstoreSigned": frozenset(
        {"keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"}
        | {"rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"}
    )
    | _IDENTITY,
}


class Requirement(msgspec.Struct, frozen=True):
    """One demand on an image: its type, and the rest as the file has it."""

    type: str
    details: Mapping[str, Any] = {}


class Policy:
    """The demands of one policy.json; an image must meet all of those in its scope."""

    def __init__(self, default: Sequence[Requirement], scopes: Mapping[str, Sequence[Requirement]], *, source: str) -> None:
        self._default, self._scopes, self._source = tuple(default), dict(scopes), source

    @classmethod
    def accept_all(cls) -> "Policy":
        """The policy of a node without one."""
        return cls((Requirement(ACCEPT),), {}, source="no policy")

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy.json.

        Raises:
            Invalid: it is missing, or anything in it is unknown, twice or of the wrong type.
        """
        where = str(path)
        with explain(f"read signature policy {where}"):
            try:
                raw = files.read_limited(path, _MAX_FILE_BYTES)
            except FileNotFoundError:
                raise Invalid("signature policy", where, "a file that exists; write a policy.json there") from None
        return cls.parse(raw, where=where)

    @classmethod
    def parse(cls, raw: bytes, *, where: str) -> "Policy":
        """The policy that the bytes of a file say; `where` names the file in errors.

        Raises:
            Invalid: as for `load`.
        """
        value = document.parse_object(raw, what=where, limit_bytes=_MAX_FILE_BYTES)
        _refuse_unknown(value, {"default", "transports"}, where)
        if "default" not in value:
            raise Invalid(f"{where}: default", None, "a list of requirements")
        transports = _object(value.get("transports", {}), f"{where}: transports")
        scopes = {}
        for transport, listed in transports.items():
            for scope, demands in _object(listed, f"{where}: transports.{transport}").items():
                requirements = _requirements(demands, f"{where}: transports.{transport}[{scope!r}]")
                if transport == _TRANSPORT:
                    scopes[_checked_scope(scope, where)] = requirements
        return cls(_requirements(value["default"], f"{where}: default"), scopes, source=where)

    def judge(self, reference: Reference) -> None:
        """Let an image from a registry pass, or refuse it.

        Raises:
            Denied: a demand is not met; the message names the scope and the reason.
        """
        scope, requirements = self.demands(reference)
        for requirement in requirements:
            if requirement.type != ACCEPT:
                self._deny(reference, scope, requirement)

    def judge_unnamed(self, image_id: str) -> None:
        """Let an image pass that is here without any name, by the global default.

        Raises:
            Denied: the default demands something.
        """
        for requirement in self._default:
            if requirement.type != ACCEPT:
                raise Denied(
                    f"cannot use image {image_id}: signature policy {self._source}, scope 'default', demands "
                    f"{requirement.type} and the image has no name another scope could match"
                )

    @property
    def source(self) -> str:
        """The file it comes from."""
        return self._source

    def demands(self, reference: Reference) -> tuple[str, Sequence[Requirement]]:
        """The scope that decides about an image, and all that it demands."""
        exact = [scope for scope in _identities(reference) if scope in self._scopes]
        if exact:
            return exact[0], [requirement for scope in exact for requirement in self._scopes[scope]]
        for scope in _wider(reference):
            if scope in self._scopes:
                return scope or f"{_TRANSPORT} default", self._scopes[scope]
        return "default", self._default

    def _deny(self, reference: Reference, scope: str, requirement: Requirement) -> NoReturn:
        what = f"cannot use image {reference}: signature policy {self._source}, scope {scope!r},"
        if requirement.type == REJECT:
            raise Denied(f"{what} rejects it; change the policy to allow it")
        raise Denied(f"{what} demands {requirement.type}, which this version cannot verify; nothing is accepted unverified")


def find_policy(environ: Mapping[str, str]) -> Path | None:
    """The policy that the container tools of this user read, or None if there is none."""
    home = environ.get("HOME")
    candidates = [*([Path(home) / ".config/containers/policy.json"] if home else []), SYSTEM_FILE]
    return next((path for path in candidates if path.exists()), None)


def _identities(reference: Reference) -> Iterator[str]:
    if reference.digest:
        yield f"{reference.name}@{reference.digest}"
    if reference.tag:
        yield f"{reference.name}:{reference.tag}"


def _wider(reference: Reference) -> Iterator[str]:
    """Every scope above the image itself, most specific first; the empty one is the transport's default."""
    name = reference.name
    while name:
        yield name
        name = name.rpartition("/")[0]
    host = reference.domain
    while "." in host and not host.startswith("["):
        host = host.partition(".")[2]
        yield f"*.{host}"
    yield ""


def _checked_scope(scope: str, where: str) -> str:
    host, slash, _ = scope.partition("/")
    if "*" in scope and (slash or not host.startswith("*.") or "*" in host[1:]):
        raise Invalid(f"{where}: transports.{_TRANSPORT}", scope, "a wildcard only as *.example.com")
    return host.lower() + scope[len(host) :]


def _requirements(value: object, where: str) -> tuple[Requirement, ...]:
    if not isinstance(value, list) or not value:
        raise Invalid(where, value, "a list of at least one requirement")
    return tuple(_requirement(item, f"{where}[{at}]") for at, item in enumerate(value))


def _requirement(value: object, where: str) -> Requirement:
    fields = _object(value, where)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise Invalid(f"{where}.type", kind, f"one of {', '.join(_KEYS)}")
    _refuse_unknown(fields, {"type", *_KEYS[kind]}, where)
    return Requirement(kind, {key: item for key, item in fields.items() if key != "type"})


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(where, type(value).__name__, "an object")
    return value


def _refuse_unknown(value: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise Invalid(where, f"the key {key!r}", f"only {', '.join(sorted(known))}")
