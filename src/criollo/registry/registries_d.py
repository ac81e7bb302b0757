"""registries.d: where the signatures of an image are, by its name.

The most specific scope that says something decides: the reference itself, its repository, each namespace above, the host,
`*.` of the domains above it (for all its ports), then `default-docker`. Each key is looked for on its own.

Source: containers-registries.d(5).
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci.reference import Reference

SYSTEM_DIRECTORY: Final = Path("/etc/containers/registries.d")
_DEFAULT_LOOKASIDE: Final = "file:///var/lib/containers/sigstore"
_OWN_LOOKASIDE: Final = ".local/share/containers/sigstore"  # of who is not root, below home
_MAX_BYTES: Final = 1 << 20
_MAX_FILES: Final = 1000
_SCHEMES: Final = ("file", "http", "https")
_TEXTS: Final = ("lookaside", "lookaside-staging", "sigstore", "sigstore-staging")
_ATTACHMENTS: Final = "use-sigstore-attachments"


class Places(msgspec.Struct, frozen=True):
    """What one scope says; None where it says nothing."""

    lookaside: str | None = None
    attachments: bool | None = None
    staging: str | None = None


class SignaturePlaces:
    """The files of one directory, merged."""

    def __init__(self, scopes: Mapping[str, Places], default: Places) -> None:
        self._scopes, self._default = dict(scopes), default

    @classmethod
    def load(cls, directory: Path | None) -> "SignaturePlaces":
        """Read the `*.yaml` files of a directory; blocking.

        Raises:
            Invalid: a file is malformed, or a scope is in two of them.
        """
        scopes: dict[str, Places] = {}
        origins: dict[str, Path] = {}
        for path in _find(directory):
            for scope, places in _read(path):
                if scope in origins:
                    raise Invalid(
                        f"{path}: {scope or 'default-docker'}", "twice", f"it in one file; {origins[scope]} has it too"
                    )
                scopes[scope], origins[scope] = places, path
        default = scopes.pop("", Places())
        return cls(scopes, default)

    def lookaside(self, reference: Reference) -> str | None:
        """The URL below which signatures of the repository are, without the repository; None if no file says."""
        return next((each.lookaside for each in self._of(reference) if each.lookaside), None)

    def staging(self, reference: Reference) -> str | None:
        """The URL below which signatures of the repository are written; None if no file says.

        A scope that says only where they are read says that they are written there too, whatever wider scopes say.
        """
        return next((each.staging or each.lookaside for each in self._of(reference) if each.staging or each.lookaside), None)

    def uses_attachments(self, reference: Reference) -> bool:
        """Whether sigstore signatures are looked for in the registry itself."""
        return next((each.attachments for each in self._of(reference) if each.attachments is not None), False)

    def _of(self, reference: Reference) -> Iterable[Places]:
        named = reference if reference.digest is None else reference.with_digest(reference.digest)
        for scope in named.scopes():
            if scope in self._scopes:
                yield self._scopes[scope]
        yield self._default


def default_lookaside(environ: Mapping[str, str], user: int) -> str:
    """The URL below which signatures are that no file says anything about."""
    home = environ.get("HOME", "")
    if user == 0 or not home.startswith("/"):
        return _DEFAULT_LOOKASIDE
    return (Path(home) / _OWN_LOOKASIDE).as_uri()


def find_directory(environ: Mapping[str, str]) -> Path:
    """The directory that the container tools of this user read."""
    home = environ.get("HOME")
    own = Path(home) / ".config/containers/registries.d" if home else None
    return own if own is not None and own.exists() else SYSTEM_DIRECTORY


def _find(directory: Path | None) -> list[Path]:
    if directory is None:
        return []
    with explain(f"read {directory}"):
        try:
            found = sorted(path for path in directory.iterdir() if path.name.endswith(".yaml"))
        except FileNotFoundError:
            return []
    if len(found) > _MAX_FILES:
        raise Invalid(str(directory), f"{len(found)} files", f"at most {_MAX_FILES}")
    return found


def _read(path: Path) -> list[tuple[str, Places]]:
    """The scopes of one file; the empty one is `default-docker`."""
    with explain(f"read {path}"):
        try:
            raw = files.read_limited(path, _MAX_BYTES)
        except FileNotFoundError:
            return []
    whole = _loaded(raw, path)
    if whole is None:
        return []
    if not isinstance(whole, dict):
        raise Invalid(str(path), type(whole).__name__, "the keys default-docker and docker")
    found = []
    if whole.get("default-docker") is not None:
        found.append(("", _places(whole["default-docker"], f"{path}: default-docker")))
    scopes = whole.get("docker")
    if scopes is not None and not isinstance(scopes, dict):
        raise Invalid(f"{path}: docker", type(scopes).__name__, "scopes")
    for scope, said in (scopes or {}).items():
        if not isinstance(scope, str) or not scope:
            raise Invalid(f"{path}: docker", scope, "the name of a scope")
        host, slash, rest = scope.partition("/")
        found.append((host.lower() + slash + rest, _places(said, f"{path}: docker.{scope}")))
    return found


def _loaded(raw: bytes, path: Path) -> Any:
    """The one document of a file, in which no key is twice: readers do not agree on which would count."""
    import yaml  # 1 MiB, 11 ms: only where a policy wants signatures

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(raw)  # both are safe
        try:
            node = loader.get_single_node()
            twin = next(_twins(node), None)
            whole = None if node is None or twin is not None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(str(path), f"no YAML ({str(error)[:200]})", "a file of registries.d") from None
    if twin is not None:
        raise Invalid(str(path), f"the key {twin[:200]!r} twice", "each key once")
    return whole


def _twins(root: Any) -> Iterator[str]:
    """The keys that some table in a tree of nodes has twice."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):  # an alias, or no table and no list
            continue
        seen.add(id(node))
        keys = set()
        for member in node.value:
            key, value = member if isinstance(member, tuple) else (None, member)
            pending += [key, value]
            if isinstance(getattr(key, "value", None), str):
                if (key.tag, key.value) in keys:
                    yield key.value
                keys.add((key.tag, key.value))


def _places(said: Any, where: str) -> Places:
    if said is None:
        return Places()
    if not isinstance(said, dict):
        raise Invalid(where, type(said).__name__, f"the keys {', '.join((*_TEXTS, _ATTACHMENTS))}")
    for key in _TEXTS:
        if said.get(key) is not None:
            _check_url(said[key], f"{where}.{key}")
    attachments = said.get(_ATTACHMENTS)
    if attachments is not None and not isinstance(attachments, bool):
        raise Invalid(f"{where}.{_ATTACHMENTS}", attachments, "true or false")
    return Places(
        said.get("lookaside") or said.get("sigstore") or None,
        attachments,
        said.get("lookaside-staging") or said.get("sigstore-staging") or None,
    )


def _check_url(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise Invalid(where, type(value).__name__, "a URL")
    if not value:
        return
    try:
        parts = urlsplit(value)
    except ValueError:
        raise Invalid(where, value, "a URL") from None
    if parts.scheme not in _SCHEMES or "@" in parts.netloc or parts.query or parts.fragment:
        raise Invalid(where, parts.scheme, f"a URL with {', '.join(_SCHEMES)} and without user, query and fragment")
    if (parts.scheme == "file") != (not parts.netloc) or (parts.scheme == "file" and not parts.path.startswith("/")):
        raise Invalid(where, value, "file:///path, or a URL with its host")
