"""Which server answers for an image name: registries.conf and its drop-ins.

The longest matching `[[registry]]` table decides; its mirrors come first, its own location last. Plain HTTP and unverified
TLS exist only where a table says `insecure = true`, for the location it names. A table that cannot be understood refuses the
whole file: a rule that was meant must not be lost. Short-name modes and aliases are accepted and not used yet.

Source: containers-registries.conf(5) and containers-registries.conf.d(5), format version 2.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from criollo.errors import Denied, Invalid, explain
from criollo.linux import files
from criollo.oci import document
from criollo.oci.reference import DEFAULT_DOMAIN, Reference
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

FILE_VARIABLES: Final = ("CONTAINERS_REGISTRIES_CONF", "CONTAINER_REGISTRIES_CONF")
DIRECTORY_VARIABLES: Final = ("CONTAINERS_REGISTRIES_CONF_DIR", "CONTAINER_REGISTRIES_CONF_DIR")
SYSTEM_FILE: Final = Path("/etc/containers/registries.conf")
VENDOR_FILE: Final = Path("/usr/share/containers/registries.conf")
_MAX_FILE_BYTES: Final = 4 << 20
_LATER_KEYS: Final = frozenset(
    {"aliases", "short-name-mode", "credential-helpers", "additional-layer-store-auth-helper"},
)
_LOCATION: Final = re.compile(
    r"(?P<host>(?:\*\.)?[A-Za-z0-9.\-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?)(?P<path>/\S+)?"
)
# The name docker.io is served by another host (docker's own convention).
_API_HOSTS: Final = {"docker.io": "registry-1.docker.io"}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A repository on a server: where an image may be fetched."""

    host: str
    repository: str
    is_insecure: bool = False
    is_mirror: bool = False

    @property
    def api_host(self) -> str:
        """The host that answers the registry's protocol, with its port if one is named."""
        return _API_HOSTS.get(self.host, self.host)

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        return self.name


class Mirror(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=False):
    """A `[[registry.mirror]]` table."""

    location: Annotated[str, msgspec.Meta(min_length=1)]
    insecure: bool = False
    pull_from_mirror: Literal["", "all", "digest-only", "tag-only"] = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A `[[registry]]` table; `prefix` is never empty once loaded, `location` only for a wildcard prefix."""

    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: tuple[Mirror, ...] = ()


class Hosts:
    """The rules of one set of files; without any, every name is served by its own domain over verified TLS."""

    def __init__(self, rules: Iterable[Rule] = (), *, search: Iterable[str] = ()) -> None:
        self._rules = tuple(rules)
        self.search = tuple(search)

    @classmethod
    def load(cls, conf: Path | None, conf_d: Path | None = None) -> "Hosts":
        """Read a registries.conf and the `*.conf` files of a directory, in the order of their names.

        Later files replace tables of the same prefix and the search list.

        Raises:
            Invalid: a file is malformed, or `conf` is missing; the message names the file.
        """
        rules: dict[str, Rule] = {}
        search: list[str] = []
        for path in _files(conf, conf_d):
            found, listed = _read(path)
            rules.update((rule.prefix, rule) for rule in found)
            search = search if listed is None else listed
        return cls(rules.values(), search=search)

    @property
    def default_domain(self) -> str:
        """The registry of a short name: the first of the search list."""
        return self.search[0] if self.search else DEFAULT_DOMAIN

    def endpoints(self, ref: Reference) -> list[Endpoint]:
        """Where to ask for an image, in order; the last one is its registry, those before are mirrors.

        Raises:
            Denied: the name is blocked.
        """
        rule = self._rule(ref)
        if rule is None:
            return [Endpoint(host=ref.domain, repository=ref.path)]
        if rule.blocked:
            raise Denied(f"cannot pull {ref}: registries.conf blocks {rule.prefix}; remove `blocked` there to allow it")
        mirrors = [mirror for mirror in rule.mirror if _serves(mirror, rule, ref)]
        moved = [_moved(ref, rule, mirror.location, insecure=mirror.insecure, mirror=True) for mirror in mirrors]
        return [*moved, _moved(ref, rule, rule.location, insecure=rule.insecure)]

    def is_insecure(self, host: str) -> bool:
        """Whether a table marks this whole host (`host:port` as written there) as insecure."""
        for rule in self._rules:
            locations = [(rule.location or rule.prefix, rule.insecure)]
            locations += [(mirror.location, mirror.insecure) for mirror in rule.mirror]
            if any(insecure and _covers(location, host) for location, insecure in locations):
                return True
        return False

    def _rule(self, ref: Reference) -> Rule | None:
        matching = [rule for rule in self._rules if _matches(rule.prefix, ref)]
        return max(matching, key=lambda rule: len(rule.prefix), default=None)


def find_registries_conf(environ: Mapping[str, str]) -> tuple[Path | None, Path | None]:
    """The registries.conf and the drop-in directory in force, as the other container tools find them.

    A file named by the environment brings its own directory, `<file>.d`; so does the one in the home directory.
    """
    directory = next((Path(environ[key]) for key in DIRECTORY_VARIABLES if environ.get(key)), None)
    named = next((Path(environ[key]) for key in FILE_VARIABLES if environ.get(key)), None)
    if named is not None:
        return named, directory or named.with_name(named.name + ".d")
    system = [SYSTEM_FILE, VENDOR_FILE]
    if environ.get("HOME"):
        system.insert(0, Path(environ["HOME"]) / ".config/containers/registries.conf")
    conf = next((path for path in system if path.exists()), None)
    beside = conf if conf is not None and conf != VENDOR_FILE else SYSTEM_FILE
    return conf, directory or beside.with_name(beside.name + ".d")


def _files(conf: Path | None, conf_d: Path | None) -> list[Path]:
    dropped = sorted(conf_d.glob("*.conf")) if conf_d is not None and conf_d.is_dir() else []
    return ([conf] if conf is not None else []) + [path for path in dropped if not path.is_dir()]


def _read(path: Path) -> tuple[list[Rule], list[str] | None]:
    where = str(path)
    try:
        with explain(f"read {where}"):
            table = tomllib.loads(files.read_limited(path, _MAX_FILE_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(where, str(error) or "deep nesting", "a TOML document") from None
    if "registries" in table:
        raise Invalid(
            where, "tables of format version 1", "version 2: write [[registry]] tables, see containers-registries.conf(5)"
        )
    _report_unused(table, where)
    rules = [
        _checked(rule, where) for rule in document.convert(table.get("registry", []), list[Rule], what=f"{where}: registry")
    ]
    listed = table.get("unqualified-search-registries")
    if listed is None:
        return rules, None
    search = document.convert(listed, list[str], what=f"{where}: unqualified-search-registries")
    for entry in search:
        found = _LOCATION.fullmatch(entry)
        if found is None or found["path"] or entry.startswith("*"):
            raise Invalid(f"{where}: unqualified-search-registries", entry, "registry hosts")
    return rules, [entry.lower() for entry in search]


def _report_unused(table: Mapping[str, Any], where: str) -> None:
    known = {"registry", "unqualified-search-registries"}
    for key in table:
        if key in _LATER_KEYS:
            log.debug("registries.conf key has no effect yet", key=key, file=where)
        elif key not in known:
            log.warning("unknown key in registries.conf", key=key, file=where)


def _checked(rule: Rule, where: str) -> Rule:
    """The rule in normal spelling: prefix set, no trailing slashes, hosts in lower case."""
    location = _normal(rule.location, f"{where}: registry.location") if rule.location else ""
    prefix = _normal(rule.prefix, f"{where}: registry.prefix") if rule.prefix else location
    if not prefix:
        raise Invalid(f"{where}: registry", "neither prefix nor location", "at least one of them")
    if not location and not prefix.startswith("*."):
        location = prefix
    if location.startswith("*"):
        raise Invalid(f"{where}: registry.location", location, "a host; a wildcard is for prefix alone")
    mirrors = []
    for mirror in rule.mirror:
        moved = _normal(mirror.location, f"{where}: registry.mirror.location")
        if rule.mirror_by_digest_only and mirror.pull_from_mirror:
            raise Invalid(
                f"{where}: registry.mirror.pull-from-mirror", mirror.pull_from_mirror, "absence beside mirror-by-digest-only"
            )
        if moved.startswith("*"):
            raise Invalid(f"{where}: registry.mirror.location", moved, "a host; a wildcard is for prefix alone")
        mirrors.append(msgspec.structs.replace(mirror, location=moved))
    return msgspec.structs.replace(rule, prefix=prefix, location=location, mirror=tuple(mirrors))


def _normal(text: str, field: str) -> str:
    found = _LOCATION.fullmatch(text.rstrip("/"))
    if found is None or "://" in text:
        raise Invalid(field, text, "host[:port][/namespace…] without a scheme")
    return found["host"].lower() + (found["path"] or "")


def _matches(prefix: str, ref: Reference) -> bool:
    names = [ref.name, *([f"{ref.name}:{ref.tag}"] if ref.tag else []), *([f"{ref.name}@{ref.digest}"] if ref.digest else [])]
    if not prefix.startswith("*."):
        return prefix in names or ref.name.startswith(prefix + "/")
    host, slash, path = prefix.partition("/")
    if not ref.domain.endswith(host[1:]) or len(ref.domain) < len(host):
        return False
    return not slash or any(name.partition("/")[2] == path for name in names) or ref.path.startswith(path + "/")


def _serves(mirror: Mirror, rule: Rule, ref: Reference) -> bool:
    if rule.mirror_by_digest_only or mirror.pull_from_mirror == "digest-only":
        return ref.digest is not None
    return mirror.pull_from_mirror != "tag-only" or ref.digest is None


def _moved(ref: Reference, rule: Rule, location: str, *, insecure: bool, mirror: bool = False) -> Endpoint:
    """The reference's place below `location` instead of below the rule's prefix."""
    if not location:
        return Endpoint(host=ref.domain, repository=ref.path, is_insecure=insecure, is_mirror=mirror)
    prefix = _bare(rule.prefix)
    if prefix.startswith("*."):
        prefix = ref.domain + prefix[len(prefix.partition("/")[0]) :]
    moved = _bare(location) + ref.name[len(prefix) :]
    host, slash, repository = moved.partition("/")
    if not slash or not repository:
        raise Invalid("registries.conf", location, f"a location that names a repository for {ref.name}")
    return Endpoint(host=host, repository=repository, is_insecure=insecure, is_mirror=mirror)


def _bare(location: str) -> str:
    """Without a tag or digest at its end."""
    location = location.partition("@")[0]
    head, slash, last = location.rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if slash else location


def _covers(location: str, host: str) -> bool:
    return host.endswith(location[1:]) and len(host) > len(location) - 1 if location.startswith("*.") else location == host
