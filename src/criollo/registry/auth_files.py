"""Credentials in files: containers' auth.json and docker's config.json.

    {"auths": {"registry.example.com/team": {"auth": "<base64 of user:password>"}}}

The most specific key wins: the repository, each namespace above it, then the host. Credential helpers come later; a file that
relies on them gives nothing here.

Source: containers-auth.json(5).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci import document
from criollo.registry.auth import Credentials
from criollo.registry.hosts import Endpoint

_MAX_FILE_BYTES: Final = 4 << 20
_DOCKER_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = msgspec.field(default="", name="identitytoken")
    registry_token: str = msgspec.field(default="", name="registrytoken")

    def __repr__(self) -> str:
        return "_Entry(***)"


def find_auth_files(environ: Mapping[str, str], uid: int) -> list[Path]:
    """Where credentials are looked for, in order; the files need not exist.

    Source: containers-auth.json(5): `REGISTRY_AUTH_FILE` alone, if set.
    """
    if environ.get("REGISTRY_AUTH_FILE"):
        return [Path(environ["REGISTRY_AUTH_FILE"])]
    runtime = environ.get("XDG_RUNTIME_DIR")
    paths = [Path(runtime) / "containers/auth.json" if runtime else Path(f"/run/containers/{uid}/auth.json")]
    if environ.get("HOME"):
        home = Path(environ["HOME"])
        configured = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
        paths += [configured / "containers/auth.json", docker / "config.json"]
    return paths


def lookup(paths: Sequence[Path], endpoint: Endpoint) -> Credentials | None:
    """The credentials for an endpoint in the first file that has some; absent files are passed over.

    Raises:
        Invalid: a file is malformed; its secrets are not shown.
    """
    for path in paths:
        found = _from_file(path, endpoint)
        if found is not None:
            return found
    return None


def _from_file(path: Path, endpoint: Endpoint) -> Credentials | None:
    try:
        with explain(f"read {path}"):
            try:
                raw = files.read_limited(path, _MAX_FILE_BYTES)
            except (FileNotFoundError, NotADirectoryError):
                return None
    except Invalid:
        raise
    where = str(path)
    auths = document.parse_object(raw, what=where, limit_bytes=_MAX_FILE_BYTES).get("auths")
    auths = {} if auths is None else auths
    if not isinstance(auths, dict):
        raise Invalid(f"{where}: auths", type(auths).__name__, "an object")
    normal = {_normal(key): key for key in reversed(auths)}
    for name in _names(endpoint):
        key = name if name in auths else normal.get(name)
        if key is not None:
            return _credentials(auths[key], f"{where}: auths[{key!r}]")
    return None


def _names(endpoint: Endpoint) -> list[str]:
    parts = endpoint.name.split("/")
    names = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return names + list(_DOCKER_KEYS) if endpoint.host == "docker.io" else names


def _normal(key: str) -> str:
    """A docker key may be a URL: only its host counts."""
    if key in _DOCKER_KEYS:
        return key
    rest = key.removeprefix("https://").removeprefix("http://")
    return rest.partition("/")[0] if rest != key else rest.rstrip("/")


def _credentials(value: object, where: str) -> Credentials | None:
    if not isinstance(value, dict):
        raise Invalid(where, type(value).__name__, "an object")
    entry = document.convert(document.without_nulls(value), _Entry, what=where)
    if entry.auth:
        found = Credentials.of_auth(entry.auth, field=f"{where}.auth", identity_token=entry.identity_token)
    else:
        found = Credentials(username=entry.username, password=entry.password, identity_token=entry.identity_token)
    found = msgspec.structs.replace(found, registry_token=entry.registry_token)
    return None if found.is_empty else found
