"""registries.conf and its drop-ins as checked values: tables, search list, short-name mode and aliases, credential programs.

A file that cannot be understood is refused whole: a rule that was meant must not be lost, so a misspelt key of a `[[registry]]`
table refuses it too, while keys like no other are named in the log. Later files replace tables of the same prefix, aliases of
the same name, and the lists that they have. A file of format 1 is read as what it says in format 2; a drop-in must not be one.

Source: containers-registries.conf(5) and containers-registries.conf.d(5); containers/image, pkg/sysregistriesv2.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from criollo.errors import Invalid, explain, printable
from criollo.linux import files
from criollo.oci import document
from criollo.oci.reference import Reference, is_short
from criollo.registry.keys import check_unknown, folded
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

AUTH_FILES: Final = "containers-auth.json"  # in credential-helpers: the auth files, as one source among the programs
_MAX_FILE_BYTES: Final = 4 << 20
_KNOWN_KEYS: Final = frozenset(
    {"registry", "unqualified-search-registries", "short-name-mode", "aliases", "credential-helpers"},
)
_FORMAT_1: Final = "registries"  # the key of its tables
_NOT_OURS: Final = frozenset({"additional-layer-store-auth-helper", _FORMAT_1})
_LOCATION: Final = re.compile(
    r"(?P<host>(?:\*\.)?[A-Za-z0-9.\-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?)(?P<path>/\S+)?"
)
_PROGRAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Mode(StrEnum):
    """What becomes of a short name that several registries may mean."""

    ENFORCING = "enforcing"
    PERMISSIVE = "permissive"
    DISABLED = "disabled"


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
    file: str = ""  # where it stands; ours to set


class Alias(msgspec.Struct, frozen=True):
    """What a short name stands for, without tag or digest; an empty target takes an earlier alias back."""

    target: str
    file: str


_RULE_KEYS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Rule)) - {"file"}
_MIRROR_KEYS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Mirror))


class Conf(msgspec.Struct, frozen=True, kw_only=True):
    """All files as one; `search` is None where no file has the list, `mode` where no file names one."""

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] | None = None
    mode: Mode | None = None
    aliases: Mapping[str, Alias] = {}
    credential_programs: tuple[str, ...] | None = None


def load(conf: Path | None, drop_ins: Iterable[Path] = (), *, aliases_file: Path | None = None) -> Conf:
    """The files, in order; `aliases_file` is the one that other tools write, and wins over the aliases of the rest.

    Raises:
        Invalid, HostFailed: a file is malformed or cannot be read; the message names it. Only `conf` must be there: drop-ins
            may go away after they were listed.
    """
    whole = _read(conf) if conf is not None else Conf()
    for path in drop_ins:
        whole = _merged(whole, _read(path, is_drop_in=True))
    if aliases_file is not None:
        recorded = _read(aliases_file, is_drop_in=True, aliases_only=True)
        whole = msgspec.structs.replace(whole, aliases={**whole.aliases, **recorded.aliases})
    return whole


def is_host(text: str) -> bool:
    """Whether a text is `host[:port]`, and no wildcard."""
    found = _LOCATION.fullmatch(text)
    return found is not None and not found["path"] and not text.startswith("*")


def _merged(before: Conf, after: Conf) -> Conf:
    rules = {rule.prefix: rule for rule in (*before.rules, *after.rules)}
    programs = before.credential_programs if after.credential_programs is None else after.credential_programs
    return Conf(
        rules=tuple(rules.values()),
        search=before.search if after.search is None else after.search,
        mode=after.mode or before.mode,
        aliases={**before.aliases, **after.aliases},
        credential_programs=programs,
    )


def _read(path: Path, *, is_drop_in: bool = False, aliases_only: bool = False) -> Conf:
    where = str(path)
    table = _format_2(_table(path, may_be_missing=is_drop_in), where, is_drop_in=is_drop_in)
    aliases = document.convert(table.get("aliases", {}), dict[str, str], what=f"{where}: aliases")
    checked = {name: Alias(_target(name, target, where), where) for name, target in aliases.items()}
    if aliases_only:
        return Conf(aliases=checked)
    tables = _folded_tables(table.get("registry", []), where)
    rules = _rules(document.convert(tables, list[Rule], what=f"{where}: registry"), where)
    return Conf(
        rules=tuple(rules.values()),
        search=_search(table.get("unqualified-search-registries"), where),
        mode=_mode(table.get("short-name-mode", ""), where),
        aliases=checked,
        credential_programs=_programs(table.get("credential-helpers"), where),
    )


def _format_2(table: dict[str, Any], where: str, *, is_drop_in: bool) -> dict[str, Any]:
    """The known keys of a file's top table, of whichever format it is."""
    own = folded(table, _KNOWN_KEYS, where)
    said = folded(table, _NOT_OURS, where)
    for key in table:
        if key.lower() not in _KNOWN_KEYS | _NOT_OURS:
            log.warning("unknown key in registries.conf", key=printable(key[:255]), file=where)
    if _FORMAT_1 not in said:
        return own
    from criollo.registry import format_1  # few files are of it

    lists = format_1.lists_of(said, where)
    if not any(lists.values()):
        return own
    if is_drop_in or own:
        got = "tables of format version 1 in a drop-in" if is_drop_in else "tables of format versions 1 and 2"
        raise Invalid(where, got, f"version 2: {format_1.told(lists)}")
    return format_1.translated(lists)


def _rules(tables: Iterable[Rule], where: str) -> dict[str, Rule]:
    """The tables of one file by prefix, checked alone and against each other."""
    rules: dict[str, Rule] = {}
    places: dict[str, Rule] = {}
    for table in tables:
        rule = _checked(table, where)
        place = rule.location or rule.prefix
        other = places.setdefault(place, rule)
        for key, here, there in (
            ("insecure", rule.insecure, other.insecure),
            ("blocked", rule.blocked, other.blocked),
        ):
            if here is not there:
                got = f"{str(here).lower()}, and {str(there).lower()} for {other.prefix}"
                raise Invalid(f"{where}: [[registry]] {rule.prefix}: {key}", got, f"the same for all that is at {place}")
        if rules.setdefault(rule.prefix, rule) is not rule:
            log.warning("several tables of one prefix: the first counts", prefix=rule.prefix, file=where)
    return rules


def _table(path: Path, *, may_be_missing: bool) -> dict[str, Any]:
    where = str(path)
    try:
        with explain(f"read {where}"):
            try:
                return tomllib.loads(files.read_limited(path, _MAX_FILE_BYTES).decode())
            except FileNotFoundError:
                if may_be_missing:
                    return {}
                raise
    except (ValueError, RecursionError) as error:
        raise Invalid(where, str(error) or "deep nesting", "a TOML document") from None


def _folded_tables(tables: object, where: str) -> object:
    """The `[[registry]]` tables with the keys that we know; a misspelt `blocked` must not allow.

    What else is wrong with them is found where they are converted.

    Raises:
        Invalid: a key was meant and is none.
    """
    if not isinstance(tables, list):
        return tables
    found = []
    for at, table in enumerate(tables):
        if not isinstance(table, dict):
            return tables
        known = folded(table, _RULE_KEYS, where)
        shown = str(known.get("prefix") or known.get("location") or f"number {at + 1}")[:255]
        check_unknown(table, _RULE_KEYS, f"{where}: [[registry]] {shown}", elsewhere=_MIRROR_KEYS)
        mirrors = known.get("mirror")
        if isinstance(mirrors, list):
            known["mirror"] = [_folded_mirror(mirror, shown, where) for mirror in mirrors]
        found.append(known)
    return found


def _folded_mirror(mirror: object, of: str, where: str) -> object:
    if not isinstance(mirror, dict):
        return mirror
    known = folded(mirror, _MIRROR_KEYS, where)
    place = f"{where}: [[registry.mirror]] {str(known.get('location', ''))[:255]} of {of}"
    check_unknown(mirror, _MIRROR_KEYS, place, elsewhere=_RULE_KEYS)
    return known


def _search(listed: object, where: str) -> tuple[str, ...] | None:
    if listed is None:
        return None
    field = f"{where}: unqualified-search-registries"
    search = [entry.rstrip("/") for entry in document.convert(listed, list[str], what=field)]
    for entry in search:
        if not is_host(entry):
            raise Invalid(field, entry, "registry hosts")
    return tuple(dict.fromkeys(entry.lower() for entry in search))


def _mode(said: object, where: str) -> Mode | None:
    if said == "":
        return None
    try:
        return Mode(str(said))
    except ValueError:
        raise Invalid(f"{where}: short-name-mode", said, "enforcing, permissive or disabled") from None


def _programs(listed: object, where: str) -> tuple[str, ...] | None:
    if listed is None:
        return None
    field = f"{where}: credential-helpers"
    found = document.convert(listed, list[str], what=field)
    for name in found:
        if not _PROGRAM.fullmatch(name):
            raise Invalid(field, name, f"{AUTH_FILES}, or X for the program docker-credential-X")
    return tuple(dict.fromkeys(found)) or (AUTH_FILES,)


def _target(name: str, target: str, where: str) -> str:
    """An alias's target in full; the short name and the target have neither tag nor digest."""
    field = f"{where}: aliases.{name}"
    if not is_short(name) or "@" in name or ":" in name:
        raise Invalid(field, name, "a name without registry, tag and digest")
    Reference.parse(name, field=field)
    if not target:
        return ""
    if is_short(target) or "@" in target or ":" in target.rpartition("/")[2]:
        raise Invalid(field, target, "registry/repository without tag and digest, or nothing to take an alias back")
    return Reference.parse(target, field=field).name


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
    if prefix.startswith("*") and not set(prefix).isdisjoint("/:@"):
        raise Invalid(f"{where}: registry.prefix", prefix, "a wildcard as *.example.com, without port and path")
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
    return msgspec.structs.replace(rule, prefix=prefix, location=location, mirror=tuple(mirrors), file=where)


def _normal(text: str, field: str) -> str:
    found = _LOCATION.fullmatch(text.rstrip("/"))
    if found is None or "://" in text:
        raise Invalid(field, text, "host[:port][/namespace…] without a scheme")
    return found["host"].lower() + (found["path"] or "")
