"""hosts.toml: the mirrors of one registry as containerd's users write them.

    server = "https://registry.example.com"            # the registry itself, asked last
    [host."https://mirror.example.com"]                 # asked before it, in the order of the file
      capabilities = ["pull", "resolve"]                # resolve: may be asked what a tag means

Reading is strict where a mistake would weaken something: an unknown capability or a field of a wrong type refuses the file.

Source: containerd's document on registry hosts (docs/hosts.md).
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.errors import Invalid, printable
from criollo.oci.reference import Reference
from criollo.registry.auth import Hidden
from criollo.registry.endpoints import NO_TLS, Endpoint, Tls, api_host
from criollo.registry.redirects import Origin, origin
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

RESOLVE: Final = "resolve"
PULL: Final = "pull"
_CAPABILITIES: Final = frozenset({RESOLVE, PULL, "push", "referrers"})
_FIELDS: Final = frozenset({"capabilities", "ca", "client", "skip_verify", "override_path", "header", "dial_timeout"})
_OURS: Final = frozenset({"user-agent", "host", "content-length", "range", "accept", "accept-encoding", "transfer-encoding"})


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One host of the file; `base` is what comes before the repository in a path."""

    netloc: str
    scheme: str
    base: str
    capabilities: frozenset[str]
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    tls: Tls = NO_TLS

    def __repr__(self) -> str:
        return f"Server({self.netloc})"


class HostsToml(msgspec.Struct, frozen=True, kw_only=True):
    """A file: its mirrors in order, and the registry itself."""

    file: str
    mirrors: tuple[Server, ...]
    server: Server

    def endpoints(self, ref: Reference, *, capability: str) -> list[Endpoint]:
        """Where to ask, in order; the registry itself comes last, whatever it is said to be able to."""
        able = [server for server in self.mirrors if capability in server.capabilities]
        found = [_endpoint(server, ref, self.file, is_mirror=True) for server in able]
        return [*found, _endpoint(self.server, ref, self.file, is_mirror=False)]


def parse(raw: bytes, *, path: Path, domain: str) -> HostsToml:
    """The file at `path`, for the registry of that domain; files that it names are taken relative to it.

    Raises:
        Invalid: it is malformed; the message names file and field.
    """
    where = str(path)
    try:
        table = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(where, _cause(error), "a TOML document") from None
    hosts = _typed(table, "host", dict, where, {})
    _check_keys(table, where)
    for url, host in hosts.items():
        if not isinstance(host, dict):
            raise Invalid(f"{where}: host.{_shown(url)}", type(host).__name__, "a table")
    mirrors = tuple(_server(url, host, path) for url, host in hosts.items())
    named = _typed(table, "server", str, where, "") or f"https://{api_host(domain)}"
    return HostsToml(file=where, mirrors=mirrors, server=_server(named, table, path))


def _endpoint(server: Server, ref: Reference, file: str, *, is_mirror: bool) -> Endpoint:
    is_home = server.netloc == api_host(ref.domain)
    return Endpoint(
        host=ref.domain if is_home else server.netloc,
        repository=ref.path,
        is_insecure=server.skip_verify or server.scheme == "http",
        is_mirror=is_mirror,
        scheme=server.scheme,
        base=server.base,
        namespace="" if is_home else ref.domain,
        headers=server.headers,
        tls=server.tls,
        because=f"{file}: {'host' if is_mirror else 'server'} {server.netloc}",
    )


def _server(url: str, table: Mapping[str, Any], path: Path) -> Server:
    where = f"{path}: {_shown(url)}"
    there, base = _address(url, where)
    _check_keys(table, where)
    if not _typed(table, "override_path", bool, where, False):
        base = base if base.endswith("/v2") else f"{base}/v2"
    capabilities = _typed(table, "capabilities", list, where, sorted(_CAPABILITIES))
    if not all(isinstance(each, str) and each in _CAPABILITIES for each in capabilities):
        raise Invalid(f"{where}.capabilities", capabilities, f"a list of {', '.join(sorted(_CAPABILITIES))}")
    return Server(
        netloc=there.netloc,
        scheme=there.scheme,
        base=base,
        capabilities=frozenset(capabilities),
        skip_verify=_typed(table, "skip_verify", bool, where, False),
        headers=_headers(_typed(table, "header", dict, where, {}), where),
        tls=_tls(table, where, path.parent),
    )


def _check_keys(table: Mapping[str, Any], where: str) -> None:
    """Refuse a misspelt key: it may have been meant to take something away. One like no other may be of a newer containerd."""
    known = sorted(_FIELDS | {"server", "host"})
    for key in table.keys() - set(known):
        import difflib  # a quarter of a MiB that only a key which is not known needs

        if near := difflib.get_close_matches(key[:64].lower().replace("-", "_"), known, n=1, cutoff=0.75):
            raise Invalid(where, printable(_shown(key)[:255]), f"{near[0]}? All keys are {', '.join(known)}")
        log.warning("unknown key in hosts.toml", key=printable(_shown(key)[:255]), file=where)


def _address(url: str, where: str) -> tuple[Origin, str]:
    """Origin and path of a host's URL; without a scheme it is https, http for localhost."""
    if "://" not in url:
        bare = url.partition("/")[0].partition(":")[0]
        url = f"{'http' if bare in ('localhost', '127.0.0.1') else 'https'}://{url}"
    try:
        there = origin(url)
    except ValueError:
        raise Invalid(where, "another form", "https://host[:port][/path], without user and query") from None
    path = url.partition("://")[2].partition("/")[2].rstrip("/")
    if "?" in url or "#" in url or ".." in path.split("/"):
        raise Invalid(where, "another form", "https://host[:port][/path], without user and query")
    return there, f"/{path}" if path else ""


def _cause(error: Exception) -> str:
    """What is wrong with the text; the words of the file are left out where one may be a URL with a password."""
    text = str(error) or "deep nesting"
    place = text.rpartition("(at ")[2].rstrip(")")
    return f"*** at {place}" if "@" in text else text


def _shown(url: str) -> str:
    """A URL with a user in it is refused, and must not be shown."""
    return "***" if "@" in url else url


def _tls(table: Mapping[str, Any], where: str, directory: Path) -> Tls:
    authorities = _texts(table.get("ca", []), f"{where}.ca")
    pairs = table.get("client", [])
    pairs = [pairs] if isinstance(pairs, str) else pairs
    if not isinstance(pairs, list):
        raise Invalid(f"{where}.client", type(pairs).__name__, "a file or a list of [certificate, key]")
    certificate = key = ""
    if pairs:
        first = _texts(pairs[0], f"{where}.client")
        if len(first) not in (1, 2) or not all(first):
            raise Invalid(f"{where}.client", first, "a certificate, or a pair of certificate and key")
        certificate, key = str(directory / first[0]), str(directory / first[-1])
        if len(pairs) > 1:
            log.warning("several client certificates for one registry: the first is used", file=where)
    return Tls(authorities=tuple(str(directory / each) for each in authorities), certificate=certificate, key=key)


def _headers(table: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    """Headers to send; those that are our own business are refused, and no value is ever shown."""
    found = []
    for name, value in table.items():
        texts = _texts(value, f"{where}.header.{name}", hide=True)
        if not name.replace("-", "").isalnum() or not name.isascii() or name.lower() in _OURS:
            raise Invalid(f"{where}.header", name, "the name of a header that is not ours to set")
        if any(not text.isascii() or not text.isprintable() for text in texts):
            raise Invalid(f"{where}.header.{name}", Hidden(), "printable ASCII")
        found.append((name, ", ".join(texts)))
    return tuple(found)


def _texts(value: object, where: str, *, hide: bool = False) -> Sequence[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise Invalid(where, Hidden() if hide else value, "a string or a list of strings")
    return listed


def _typed(table: Mapping[str, Any], key: str, kind: type, where: str, default: Any) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise Invalid(f"{where}.{key}", type(value).__name__, kind.__name__)
    return value
