"""`Settings` written as a configuration file again: every key with its help, defaults commented out.

What is written reads back as the same settings on the same host (`crio config > file`, `GET /config`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from criollo.config.keys import NamedTables, Setting, SubTable, Table, Works, members
from criollo.config.places import Place
from criollo.config.settings import Settings, defaults
from criollo.config.values import Duration, Size

HEADER: Final = """\
# Settings of crio. Lines that start with '# ' and hold a key show defaults; drop the '# ' to change one.
# Drop-in files in the .d directory beside this file are read after it, in lexical order; the later value wins.
"""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH: Final = 100
_ESCAPES: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def render(settings: Settings, *, commented_defaults: bool = True, base: Settings | None = None) -> str:
    """The TOML of `settings`; values equal to those of `base` are commented out unless told otherwise.

    `base` is what holds where nothing is written: `defaults()` for the cgroup manager of `settings` when not given.
    """
    usual = base or defaults(systemd=settings.runtime.cgroup_manager == "systemd")
    return HEADER + "".join(_table(settings, usual, (), commented=commented_defaults))


def toml_value(value: object) -> str:
    """A value of a setting as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case Duration() | Size():
            return _quoted(value.text)
        case tuple():
            return _list([toml_value(item) for item in value])
        case Mapping():
            return "{" + ", ".join(f"{_name(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"no setting has the type {type(value).__name__}")


def _table(table: Table, usual: Table, where: Place, *, commented: bool) -> Iterator[str]:
    yield f"\n[{'.'.join(('crio', *(_name(name) for name in where)))}]\n"
    inner: list[tuple[Table, Table, Place]] = []
    for name, member in members(type(table)).items():
        value, default = getattr(table, name), getattr(usual, name)
        if isinstance(member, Setting):
            yield _key(member, value, hidden=commented and value == default)
        elif isinstance(member, SubTable):
            inner.append((value, default, (*where, name)))
        else:
            inner.extend(_named(member, value, default, (*where, name)))
    for content, content_usual, place in inner:
        yield from _table(content, content_usual, place, commented=commented)


def _named(
    member: NamedTables, tables: Mapping[str, Table], usual: Mapping[str, Table], where: Place
) -> Iterator[tuple[Table, Table, Place]]:
    for name, table in tables.items():
        yield table, usual.get(name) or member.table(), (*where, name)


def _key(setting: Setting, value: object, *, hidden: bool) -> str:
    mark = "" if setting.key.works is Works.LIVE else f" ({setting.key.works})"
    instead = f" Deprecated; use {setting.key.deprecated}." if setting.key.deprecated else ""
    line = f"{setting.name} = {toml_value(value)}"
    if hidden:
        line = "\n".join(f"# {part}" for part in line.split("\n"))
    return f"\n# {setting.key.help}{instead}{mark}\n{line}\n"


def _list(items: list[str]) -> str:
    line = f"[{', '.join(items)}]"
    if len(line) <= _WIDTH:
        return line
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """A basic string of TOML 1.0: control characters escaped, lone surrogates cannot come in from a file."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04X}" if number <= 0xFFFF else f"\\U{number:08X}"
