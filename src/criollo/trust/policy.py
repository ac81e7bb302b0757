"""policy.json: which images may be used, by where they come from.

The most specific scope that matches decides alone: the reference itself, its repository, each namespace above, the host, then
`*.` of each domain above the host (for all its ports), then the transport's default, then the global one. A reference with tag
and digest is judged by its digest; a scope of its tag can only demand more. Reading is strict: a policy with anything unknown
or twice in it is refused whole, since a misspelt rule would silently allow.

Source: containers-policy.json(5).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.trust.fields import an_object, only
from criollo.trust.requirements import ACCEPT, Requirement, parse_requirements

SYSTEM_FILE: Final = Path("/etc/containers/policy.json")
EXAMPLE: Final = '{"default":[{"type":"insecureAcceptAnything"}]}'  # a whole policy: all that an image needs is a name
MAX_FILE_BYTES: Final = 4 << 20
REGISTRIES: Final = "docker"  # the transport of images from registries
_FILES: Final = frozenset({"dir", "oci", "oci-archive", "sif"})  # transports whose scopes are paths
_UNSCOPED: Final = frozenset({"docker-archive", "tarball"})  # those that have none but ""


class Policy:
    """The demands of one policy.json; an image must meet all of those in its scope."""

    def __init__(
        self,
        default: Sequence[Requirement],
        transports: Mapping[str, Mapping[str, Sequence[Requirement]]],
        *,
        source: str,
        fingerprint: str = "",
    ) -> None:
        """`fingerprint` tells one policy from another; it is the digest of the file."""
        self.default, self.source, self.fingerprint = tuple(default), source, fingerprint
        self._transports = {name: dict(scopes) for name, scopes in transports.items()}
        self._scopes = self._transports.get(REGISTRIES, {})

    @classmethod
    def accept_all(cls) -> "Policy":
        """A policy that asks nothing of anybody: for those who judge no images."""
        return cls((Requirement(type=ACCEPT),), {}, source="no policy")

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy.json.

        Raises:
            Invalid: it is missing, or anything in it is unknown, twice or of the wrong type.
        """
        where = str(path)
        with explain(f"read signature policy {where}"):
            try:
                raw = files.read_limited(path, MAX_FILE_BYTES)
            except FileNotFoundError:
                raise Invalid("signature policy", where, "a file that exists; write a policy.json there") from None
        return cls.parse(raw, where=where)

    @classmethod
    def parse(cls, raw: bytes, *, where: str) -> "Policy":
        """The policy that the bytes of a file say; `where` names the file in errors.

        Raises:
            Invalid: as for `load`.
        """
        value = document.parse_object(raw, what=where, limit_bytes=MAX_FILE_BYTES)
        only(value, {"default", "transports"}, where)
        if "default" not in value:
            raise Invalid(f"{where}: default", None, "a list of requirements")
        transports: dict[str, dict[str, Sequence[Requirement]]] = {}
        for transport, listed in an_object(value.get("transports", {}), f"{where}: transports").items():
            scopes = transports.setdefault(transport, {})
            for scope, demands in an_object(listed, f"{where}: transports.{transport}").items():
                requirements = parse_requirements(demands, f"{where}: transports.{transport}[{scope!r}]")
                compared = _checked(transport, scope, where)
                if compared in scopes:  # in other letters
                    raise Invalid(f"{where}: transports.{transport}", f"the scope {compared!r} twice", "each scope once")
                scopes[compared] = requirements
        default = parse_requirements(value["default"], f"{where}: default")
        return cls(default, transports, source=where, fingerprint=f"{where} {Digest.of(raw)}")

    def demands(self, reference: Reference) -> tuple[str, Sequence[Requirement]]:
        """The scope that decides about an image of a registry, and all that is demanded of it."""
        if reference.digest is None or not reference.tag:
            return self._demands(reference)
        scope, requirements = self._demands(reference.with_digest(reference.digest))
        return scope, (*requirements, *self._scopes.get(f"{reference.name}:{reference.tag}", ()))

    def demands_of_file(self, transport: str, path: Path) -> tuple[str, Sequence[Requirement]]:
        """The same for images that come from a file or directory, as `docker-archive` or `oci`: of the path, which is absolute
        and without links, one above it, or the transport's default. The name of an image within a layout or archive does not
        count, as for the other tools."""
        scopes = self._transports.get(transport, {})
        for scope in (str(path), *map(str, path.parents)):
            if scope in scopes:
                return scope, scopes[scope]
        return (f"{transport} default", scopes[""]) if "" in scopes else ("default", self.default)

    def _demands(self, reference: Reference) -> tuple[str, Sequence[Requirement]]:
        for scope in (*reference.scopes(), ""):  # the empty one is the transport's default
            if scope in self._scopes:
                return scope or f"{REGISTRIES} default", self._scopes[scope]
        return "default", self.default


def places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the container tools of this user look for their policy, in order."""
    home = environ.get("HOME")
    return (*((Path(home) / ".config/containers/policy.json",) if home else ()), SYSTEM_FILE)


def find_policy(environ: Mapping[str, str]) -> Path | None:
    """The policy that the container tools of this user read, or None if there is none."""
    return next((path for path in places(environ) if path.exists()), None)


def _checked(transport: str, scope: str, where: str) -> str:
    """A scope as it is compared; one that could never match is a mistake, and would silently allow."""
    if transport == REGISTRIES:
        return _checked_scope(scope, where)
    if transport in _UNSCOPED and scope:
        raise Invalid(f"{where}: transports.{transport}", scope, "'' alone: this transport has no other scopes")
    if transport in _FILES and scope and (scope == "/" or os.path.normpath(scope) != scope or not scope.startswith("/")):
        raise Invalid(f"{where}: transports.{transport}", scope, "an absolute path in its shortest form, or '' for all of them")
    return scope


def _checked_scope(scope: str, where: str) -> str:
    host, slash, _ = scope.partition("/")
    if "*" in scope and (slash or not host.startswith("*.") or "*" in host[1:] or ":" in host):
        raise Invalid(f"{where}: transports.{REGISTRIES}", scope, "a wildcard only as *.example.com, which is for all ports")
    return host.lower() + scope[len(host) :]
