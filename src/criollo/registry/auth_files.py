"""Credentials in files: containers' auth.json and docker's config.json.

    {"auths": {"registry.example.com/team": {"auth": "<base64 of user:password>"}},
     "credHelpers": {"registry.example.com": "ecr-login"}, "credsStore": "pass"}

The most specific key of `auths` wins: the repository, each namespace above it, then the host. A program named for the host
goes before all of them, the store of the whole file after. Programs are only named here; `logins` runs them.

Source: containers-auth.json(5); docker's documents on credential stores.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci import document
from criollo.registry.auth import Credentials, Hidden
from criollo.registry.endpoints import Endpoint
from criollo.registry.keys import folded
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_MAX_FILE_BYTES: Final = 4 << 20
_DOCKER_INDEX: Final = "https://index.docker.io/v1/"
_DOCKER_KEYS: Final = (_DOCKER_INDEX, "index.docker.io", "registry-1.docker.io")
_DOCKER_HOSTS: Final = ("docker.io", "registry-1.docker.io")  # one registry under two names
_TOP_KEYS: Final = ("auths", "credHelpers", "credsStore")
_PROGRAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEGACY_NAME: Final = ".dockercfg"  # docker before 1.7: its `auths` are the whole file


class Source(NamedTuple):
    """Where credentials for an endpoint may come from: they are here, or `program` has them under the name `server`."""

    where: str
    credentials: Credentials | None = None
    program: str = ""
    server: str = ""


class AuthFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one file, checked as far as its tables; `where` names it in errors."""

    where: str
    auths: Mapping[str, Any] = {}
    programs: Mapping[str, str] = {}
    store: str = ""

    def __repr__(self) -> str:
        return f"AuthFile({self.where})"

    def sources(self, endpoint: Endpoint) -> Iterator[Source]:
        """What this file has for an endpoint, in the order to try it.

        Raises:
            Invalid: an entry for it is malformed; its secrets are not shown.
        """
        for key in (endpoint.host, *(_DOCKER_KEYS if endpoint.host in _DOCKER_HOSTS else ())):
            if key in self.programs:
                yield Source(f"credHelpers of {self.where}", program=self.programs[key], server=key)
                break
        key, found = self._entry(endpoint)
        if found is not None:
            yield Source(f"auths[{key}] of {self.where}", credentials=found)
        elif self.store:
            server = _DOCKER_INDEX if endpoint.host in _DOCKER_HOSTS else endpoint.host
            yield Source(f"credsStore of {self.where}", program=self.store, server=server)

    def _entry(self, endpoint: Endpoint) -> tuple[str, Credentials | None]:
        normal: dict[str, str] = {_normal(key): key for key in reversed(list(self.auths))}
        for name in _names(endpoint):
            key = name if name in self.auths else normal.get(name)
            if key is not None:
                return key, _credentials(self.auths[key], f"{self.where}: auths[{key!r}]")
        return "", None


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = msgspec.field(default="", name="identitytoken")
    registry_token: str = msgspec.field(default="", name="registrytoken")

    def __repr__(self) -> str:
        return "_Entry(***)"


_ENTRY_KEYS: Final = tuple(field.encode_name for field in msgspec.structs.fields(_Entry))


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
        paths += [configured / "containers/auth.json", docker / "config.json", home / _LEGACY_NAME]
    return paths


def lookup(paths: Sequence[Path], endpoint: Endpoint) -> Credentials | None:
    """The credentials for an endpoint that stand in the first file that has some; programs are passed over.

    Raises:
        Invalid: a file is malformed; its secrets are not shown.
    """
    for path in paths:
        file = read(path)
        for source in file.sources(endpoint) if file is not None else ():
            if source.credentials is not None:
                return source.credentials
    return None


def read(path: Path) -> AuthFile | None:
    """The file at `path`; None where there is none.

    Raises:
        Invalid: it is malformed; its secrets are not shown.
        HostFailed: it cannot be read.
    """
    with explain(f"read {path}"):
        try:
            raw = files.read_limited(path, _MAX_FILE_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return parse(raw, where=str(path), is_legacy=path.name == _LEGACY_NAME)


def parse(raw: bytes, *, where: str, is_legacy: bool = False) -> AuthFile:
    """The content of a file; `where` names it in errors.

    Raises:
        Invalid: it is malformed; its secrets are not shown.
    """
    whole = document.parse_object(raw, what=where, limit_bytes=_MAX_FILE_BYTES)
    table = folded(whole, _TOP_KEYS, where)
    if is_legacy and "auths" not in table:
        return AuthFile(where=where, auths={_host_of(key): entry for key, entry in reversed(whole.items())})
    auths, programs, store = (table.get(key) for key in _TOP_KEYS)
    for key, value in (("auths", auths), ("credHelpers", programs)):
        if value is not None and not isinstance(value, dict):
            raise Invalid(f"{where}: {key}", type(value).__name__, "an object")
    for field, name in (*(programs or {}).items(), ("credsStore", store or "")):
        if not isinstance(name, str) or (name and not _PROGRAM.fullmatch(name)):
            raise Invalid(f"{where}: {field}", Hidden(), "X for the program docker-credential-X")
    named = {key: name for key, name in (programs or {}).items() if name}
    return AuthFile(where=where, auths=auths or {}, programs=named, store=store or "")


def _names(endpoint: Endpoint) -> list[str]:
    parts = endpoint.name.split("/")
    names = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return [*names, "docker.io", *_DOCKER_KEYS] if endpoint.host in _DOCKER_HOSTS else names


def _normal(key: str) -> str:
    """A docker key may be a URL: only its host counts."""
    if key in _DOCKER_KEYS:
        return key
    return _host_of(key) if key.startswith(("https://", "http://")) else key.rstrip("/")


def _host_of(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _credentials(value: object, where: str) -> Credentials | None:
    if not isinstance(value, dict):
        raise Invalid(where, type(value).__name__, "an object")
    entry = document.convert(document.without_nulls(folded(value, _ENTRY_KEYS, where)), _Entry, what=where)
    if entry.auth:
        token = entry.identity_token
        found = Credentials.of_auth(entry.auth, field=f"{where}.auth", identity_token=token, or_none=True)
        if found.is_empty:
            log.warning("an entry of an auth file is no user and password, and is passed over", entry=where)
    else:
        found = Credentials(username=entry.username, password=entry.password, identity_token=entry.identity_token)
    found = msgspec.structs.replace(found, registry_token=entry.registry_token)
    return None if found.is_empty else found
