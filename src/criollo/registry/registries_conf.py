"""registries.conf and its drop-ins as checked values: tables, search list, short-name mode and aliases, credential programs.

A file that cannot be understood is refused whole: a rule that was meant must not be lost, so a key of a `[[registry]]` table
that nobody knows refuses it too, while others are named in the log. Later files replace tables of the same prefix, aliases of
the same name, and the lists that they have.

Source: containers-registries.conf(5) and containers-registries.conf.d(5), format version 2.
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
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

AUTH_FILES: Final = "containers-auth.json"  # in credential-helpers: the auth files, as one source among the programs
_MAX_FILE_BYTES: Final = 4 << 20
_KNOWN_KEYS: Final = frozenset(
    {"registry", "unqualified-search-registries", "short-name-mode", "aliases", "credential-helpers"},
)
_NOT_OURS: Final = frozenset({"additional-layer-store-auth-helper"})
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
        whole = _merged(whole, _read(path, may_be_missing=True))
    if aliases_file is not None:
        recorded = _read(aliases_file, may_be_missing=True, aliases_only=True)
        whole = msgspec.structs.replace(whole, aliases={**whole.aliases, **recorded.aliases})
    return whole


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


def _read(path: Path, *, may_be_missing: bool = False, aliases_only: bool = False) -> Conf:
    where = str(path)
    table = _table(path, may_be_missing=may_be_missing)
    aliases = document.convert(table.get("aliases", {}), dict[str, str], what=f"{where}: aliases")
    checked = {name: Alias(_target(name, target, where), where) for name, target in aliases.items()}
    if aliases_only:
        return Conf(aliases=checked)
    if "registries" in table:
        raise Invalid(where, "tables of format version 1", f"version 2: {_translated(table['registries'])}")
    for key in table.keys() - _KNOWN_KEYS - _NOT_OURS:
        log.warning("unknown key in registries.conf", key=key, file=where)
    tables = table.get("registry", [])
    _check_keys(tables, where)
    rules: dict[str, Rule] = {}
    for rule in document.convert(tables, list[Rule], what=f"{where}: registry"):
        checked_rule = _checked(rule, where)
        if rules.setdefault(checked_rule.prefix, checked_rule) is not checked_rule:
            log.warning("several tables of one prefix: the first counts", prefix=checked_rule.prefix, file=where)
    return Conf(
        rules=tuple(rules.values()),
        search=_search(table.get("unqualified-search-registries"), where),
        mode=_mode(table.get("short-name-mode", ""), where),
        aliases=checked,
        credential_programs=_programs(table.get("credential-helpers"), where),
    )


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


def _check_keys(tables: object, where: str) -> None:
    """Refuse keys of `[[registry]]` and its mirrors that are not known: a misspelt `blocked` must not allow.

    What else is wrong with them is found where they are converted.
    """
    for at, table in enumerate(tables if isinstance(tables, list) else ()):
        if not isinstance(table, dict):
            continue
        shown = str(table.get("prefix") or table.get("location") or f"number {at + 1}")[:255]
        _check_table(table, _RULE_KEYS, f"{where}: [[registry]] {shown}")
        mirrors = table.get("mirror")
        for mirror in mirrors if isinstance(mirrors, list) else ():
            if isinstance(mirror, dict):
                place = f"{where}: [[registry.mirror]] {str(mirror.get('location', ''))[:255]} of {shown}"
                _check_table(mirror, _MIRROR_KEYS, place)


def _check_table(table: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for key in table:
        if key in known:
            continue
        import difflib  # a quarter of a MiB that only a misspelt key needs

        near = difflib.get_close_matches(key[:64].lower().replace("_", "-"), sorted(known), n=1)
        hint = f"{near[0]}? All keys are " if near else "one of "
        raise Invalid(printable(where), printable(key[:255]), hint + ", ".join(sorted(known)))


def _search(listed: object, where: str) -> tuple[str, ...] | None:
    if listed is None:
        return None
    search = document.convert(listed, list[str], what=f"{where}: unqualified-search-registries")
    for entry in search:
        found = _LOCATION.fullmatch(entry)
        if found is None or found["path"] or entry.startswith("*"):
            raise Invalid(f"{where}: unqualified-search-registries", entry, "registry hosts")
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


def _translated(tables: object) -> str:
    """What a file of version 1 says, in version 2."""
    if not isinstance(tables, dict):
        return "write [[registry]] tables, see containers-registries.conf(5)"

    def hosts(kind: str) -> list[str]:
        table = tables.get(kind)
        listed = table.get("registries") if isinstance(table, dict) else None
        return [str(host)[:255] for host in listed[:8]] if isinstance(listed, list) else []

    lines = [f"unqualified-search-registries = {hosts('search')}"] if hosts("search") else []
    lines += [f'[[registry]] location = "{host}" insecure = true' for host in hosts("insecure")]
    lines += [f'[[registry]] location = "{host}" blocked = true' for host in hosts("block")]
    return "write instead " + "; ".join(lines or ["[[registry]] tables"]).replace("'", '"')


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
    return msgspec.structs.replace(rule, prefix=prefix, location=location, mirror=tuple(mirrors), file=where)


def _normal(text: str, field: str) -> str:
    found = _LOCATION.fullmatch(text.rstrip("/"))
    if found is None or "://" in text:
        raise Invalid(field, text, "host[:port][/namespace…] without a scheme")
    return found["host"].lower() + (found["path"] or "")
