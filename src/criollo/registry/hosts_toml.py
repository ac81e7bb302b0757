"""hosts.toml: the mirrors of one registry as containerd's users write them.

    server = "https://registry.example.com"            # the registry itself, asked last
    [host."https://mirror.example.com"]                 # asked before it, in the order of the file
      capabilities = ["pull", "resolve"]                # resolve: may be asked what a tag means

Without `server` it is the host of the name itself, by the scheme that containerd takes: on this node's own addresses that is
unverified TLS or plain HTTP, by the port.

Reading is strict where a mistake would weaken something: an unknown capability or a field of a wrong type refuses the file.

Source: containerd's document on registry hosts (docs/hosts.md), and core/remotes/docker/config of its 2.3.
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.errors import Forbidden, Invalid, printable
from criollo.oci.reference import Reference
from criollo.registry.auth import Hidden
from criollo.registry.endpoints import NO_TLS, PULL, PUSH, RESOLVE, Endpoint, Tls, api_host
from criollo.registry.redirects import Origin, origin
from criollo.telemetry.log import get_logger
from criollo.wire.durations import parse_seconds

log = get_logger(__name__)

_CAPABILITIES: Final = frozenset({RESOLVE, PULL, PUSH, "referrers"})
_NEEDED: Final = {RESOLVE: {RESOLVE, PULL}, PULL: {PULL}, PUSH: {PUSH}}
_FIELDS: Final = frozenset({"capabilities", "ca", "client", "skip_verify", "override_path", "header", "dial_timeout"})
_OURS: Final = frozenset({"host", "content-length", "range", "accept", "accept-encoding", "transfer-encoding", "trailer"})
_SPELLINGS: Final = {"user-agent": "User-Agent", "authorization": "Authorization"}  # so that one takes the place of ours
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,255}")
_DIAL_S: Final = (0.001, 3600)
_HTTP_PORT: Final = 80
_HTTPS_PORT: Final = 443


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One host of the file; `base` is what comes before the repository in a path, `scheme` as in `Endpoint`.

    `is_home`: it is the host of the names themselves. `dial_s`: how long a connection may take; 0 where the file does not say.
    """

    netloc: str
    scheme: str
    base: str
    capabilities: frozenset[str]
    is_home: bool
    is_insecure: bool
    headers: tuple[tuple[str, str], ...] = ()
    tls: Tls = NO_TLS
    dial_s: float = 0

    def __repr__(self) -> str:
        return f"Server({self.netloc})"


class HostsToml(msgspec.Struct, frozen=True, kw_only=True):
    """A file: its mirrors in order, and the registry itself."""

    file: str
    mirrors: tuple[Server, ...]
    server: Server

    def endpoints(self, ref: Reference, *, capability: str) -> list[Endpoint]:
        """Where to ask, in order; the registry itself comes last, if it is able.

        Raises:
            Forbidden: no host is.
        """
        needed = _NEEDED[capability]
        servers = [server for server in (*self.mirrors, self.server) if needed <= server.capabilities]
        if not servers:
            raise Forbidden(
                f"cannot {'push' if capability == PUSH else 'pull'} {ref}: no host of {self.file} has the capabilities "
                f"{' and '.join(sorted(needed))}; name them there, or leave `capabilities` out"
            )
        *mirrors, last = servers
        return [*(_endpoint(each, ref, self, is_mirror=True) for each in mirrors), _endpoint(last, ref, self, is_mirror=False)]


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
    mirrors = tuple(_server(url, host, path, domain, unsaid=_CAPABILITIES - {PUSH}) for url, host in hosts.items())
    named = _typed(table, "server", str, where, "")
    if named:
        return HostsToml(file=where, mirrors=mirrors, server=_server(named, table, path, domain))
    home = f"https://{api_host(domain)}"
    usual = _server(home, table, path, domain)
    scheme, is_insecure = _usual(home, is_insecure=usual.is_insecure)
    # What a file says about a path and capabilities is about a server that it names.
    server = msgspec.structs.replace(
        usual, scheme=scheme, is_insecure=is_insecure, base="/v2", capabilities=_CAPABILITIES, is_home=True
    )
    return HostsToml(file=where, mirrors=mirrors, server=server)


def _endpoint(server: Server, ref: Reference, file: HostsToml, *, is_mirror: bool) -> Endpoint:
    kind = "server" if server is file.server else "host"
    return Endpoint(
        host=ref.domain if server.is_home else server.netloc,
        repository=ref.path,
        is_insecure=server.is_insecure,
        is_mirror=is_mirror,
        scheme=server.scheme,
        base=server.base,
        namespace="" if server.is_home else ref.domain,
        headers=server.headers,
        tls=server.tls,
        dial_s=server.dial_s,
        because=f"{file.file}: {kind} {server.netloc}",
    )


def _server(url: str, table: Mapping[str, Any], path: Path, domain: str, *, unsaid: frozenset[str] = _CAPABILITIES) -> Server:
    """A host by its table; `unsaid` are its capabilities where the table names none."""
    where = f"{path}: {_shown(url)}"
    there, base = _address(url, where)
    _check_keys(table, where)
    if not _typed(table, "override_path", bool, where, False):
        base = base if base.endswith("/v2") else f"{base}/v2"
    is_unverified = _typed(table, "skip_verify", bool, where, False)
    # Of plain HTTP without verification containerd tries TLS first, unless the port is HTTP's own.
    is_either = is_unverified and there.scheme == "http" and there.port != _HTTP_PORT
    return Server(
        netloc=there.netloc,
        scheme="" if is_either else there.scheme,
        base=base,
        capabilities=_capabilities(table, where) or unsaid,
        is_home=there.netloc in (_netloc(there.scheme, domain), _netloc(there.scheme, api_host(domain))),
        is_insecure=is_unverified or there.scheme == "http",
        headers=_headers(_typed(table, "header", dict, where, {}), where),
        tls=_tls(table, where, path.parent),
        dial_s=_seconds(_typed(table, "dial_timeout", str, where, ""), f"{where}.dial_timeout"),
    )


def _usual(home: str, *, is_insecure: bool) -> tuple[str, bool]:
    """Scheme, and whether it is insecure, of a registry whose file names no server."""
    there = origin(home)
    if not _is_this_node(there.host):
        return "https", is_insecure
    return {_HTTPS_PORT: "https", _HTTP_PORT: "http"}.get(there.port, ""), True


def _is_this_node(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _netloc(scheme: str, domain: str) -> str:
    try:
        return origin(f"{scheme}://{domain}").netloc
    except ValueError:
        return ""


def _capabilities(table: Mapping[str, Any], where: str) -> frozenset[str]:
    """Those that a table names, in any case; an empty list names none, as no list does."""
    named = _typed(table, "capabilities", list, where, [])
    if not all(isinstance(each, str) and each.lower() in _CAPABILITIES for each in named):
        raise Invalid(f"{where}.capabilities", _plain(named), f"a list of {', '.join(sorted(_CAPABILITIES))}")
    return frozenset(each.lower() for each in named)


def _seconds(text: str, where: str) -> float:
    """A duration as Go writes it (`1m30s`, `500ms`); 0 for nothing, which is what 0 means too."""
    found = parse_seconds(text) if text else 0
    if found is None:
        raise Invalid(where, _plain(text), "a duration such as 500ms, 5s or 1m30s")
    shortest, longest = _DIAL_S
    return min(max(found, shortest), longest) if found else 0


def _check_keys(table: Mapping[str, Any], where: str) -> None:
    """Refuse a misspelt key: it may have been meant to take something away. One like no other may be of a newer containerd."""
    known = sorted(_FIELDS | {"server", "host"})
    for key in table.keys() - set(known):
        import difflib  # a quarter of a MiB that only a key which is not known needs

        if near := difflib.get_close_matches(key[:64].lower().replace("-", "_"), known, n=1, cutoff=0.75):
            raise Invalid(where, printable(_shown(key)[:255]), f"{near[0]}? All keys are {', '.join(known)}")
        log.warning("unknown key in hosts.toml", key=printable(_shown(key)[:255]), file=where)


def _address(url: str, where: str) -> tuple[Origin, str]:
    """Origin and path of a host's URL; without a scheme it is https."""
    url = url if "://" in url else f"https://{url}"
    try:
        there = origin(url)
    except ValueError:
        raise Invalid(where, "another form", "https://host[:port][/path], without user and query") from None
    parts = [part for part in url.partition("://")[2].partition("/")[2].split("/") if part not in ("", ".")]
    if "?" in url or "#" in url or ".." in parts:
        raise Invalid(where, "another form", "https://host[:port][/path], without user and query")
    return there, "".join(f"/{part}" for part in parts)


def _cause(error: Exception) -> str:
    """What is wrong with the text; the words of the file are left out where one may be a URL with a password."""
    text = str(error) or "deep nesting"
    place = text.rpartition("(at ")[2].rstrip(")")
    return f"*** at {place}" if "@" in text else text


def _shown(url: str) -> str:
    """A URL with a user in it is refused, and must not be shown."""
    return "***" if "@" in url else url


def _plain(value: object) -> object:
    """A value to show, unless a URL with a user may be in it."""
    return Hidden() if "@" in str(value) else value


def _tls(table: Mapping[str, Any], where: str, directory: Path) -> Tls:
    authorities = _texts(table.get("ca", []), f"{where}.ca")
    if not all(authorities):
        raise Invalid(f"{where}.ca", _plain(authorities), "files of authorities")
    client = table.get("client", [])
    listed = [client] if isinstance(client, str) else client
    if not isinstance(listed, list):
        raise Invalid(f"{where}.client", type(client).__name__, "a file or a list of [certificate, key]")
    pairs = [_pair(each, f"{where}.client") for each in listed]
    if len(pairs) > 1:
        log.warning("several client certificates for one registry: the first is used", file=where)
    certificate, key = (str(directory / each) for each in pairs[0]) if pairs else ("", "")
    return Tls(authorities=tuple(str(directory / each) for each in authorities), certificate=certificate, key=key)


def _pair(value: object, where: str) -> tuple[str, str]:
    """A certificate and its key; one file may hold both."""
    texts = [value, ""] if isinstance(value, str) else _texts(value, where)
    if len(texts) != 2 or not texts[0]:
        raise Invalid(where, _plain(texts), "a file of both, or a pair of certificate and key")
    return texts[0], texts[1] or texts[0]


def _headers(table: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    """Headers to send, without those that belong to each request; no value is ever shown."""
    found = []
    for name, value in table.items():
        texts = _texts(value, f"{where}.header.{_shown(name)}", hide=True)
        if not _TOKEN.fullmatch(name):
            raise Invalid(f"{where}.header", _shown(name), "the name of a header")
        if any(not text.isascii() or not text.isprintable() for text in texts):
            raise Invalid(f"{where}.header.{name}", Hidden(), "printable ASCII")
        if name.lower() in _OURS:
            log.warning("a header in hosts.toml that is not the file's to set is left out", header=name, file=where)
        elif texts:
            found.append((_SPELLINGS.get(name.lower(), name), ", ".join(texts)))
    return tuple(found)


def _texts(value: object, where: str, *, hide: bool = False) -> Sequence[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise Invalid(where, Hidden() if hide else _plain(value), "a string or a list of strings")
    return listed


def _typed(table: Mapping[str, Any], key: str, kind: type, where: str, default: Any) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise Invalid(f"{where}.{key}", type(value).__name__, kind.__name__)
    return value
