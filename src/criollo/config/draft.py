"""Values on their way into `Settings`: gathered document by document, later ones win key by key.

A draft knows for every value where it came from, so that errors can name the file. What it does not know it reports
once, with the nearest key it knows.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from criollo.config.keys import Kind, NamedTables, Setting, SubTable, Table, members
from criollo.config.places import Place, dotted
from criollo.config.settings import Settings
from criollo.config.values import Duration, Size
from criollo.errors import Invalid

_T = TypeVar("_T", bound=Table)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_INT_LIMIT: Final = 1 << 63
_BOOLS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_INT: Final = re.compile(r"-?[0-9]{1,19}")


class Draft:
    """What files, environment and flags have said so far."""

    def __init__(self) -> None:
        self.origins: dict[str, str] = {}
        self.warnings: list[str] = []
        self._values: dict[Place, Any] = {}
        self._named: dict[Place, dict[str, None]] = {}  # table of names → names, in order of appearance

    def take(self, document: Mapping[str, Any], origin: str) -> None:
        """Apply one document, `{"crio": {...}}` as a file has it. Raises `Invalid` for a value of a wrong type."""
        for name, content in document.items():
            if name == "crio":
                self._take_table(Settings, content, (), origin)
            else:
                self._warn_unknown(name, "crio, the table of all settings", origin)

    def settings(self, base: Settings) -> Settings:
        """`base` with everything that was said."""
        return self._built(base, ())

    def _take_table(self, table: type[Table], content: object, where: Place, origin: str) -> None:
        if not isinstance(content, Mapping):
            raise Invalid(f"{origin}: {dotted(where)}", describe(content), "a table")
        known = members(table)
        for name, value in content.items():
            place = (*where, name)
            match known.get(name):
                case None:
                    self._warn_unknown(dotted(place), nearest(where, name), origin)
                case Setting() as setting:
                    self._values[place] = typed(setting.kind, value, f"{origin}: {dotted(place)}")
                    self.origins[dotted(place)] = origin
                case SubTable(table=inner):
                    self._take_table(inner, value, place, origin)
                case NamedTables(table=inner):
                    self._take_named(inner, value, place, origin)

    def _take_named(self, table: type[Table], content: object, where: Place, origin: str) -> None:
        if not isinstance(content, Mapping):
            raise Invalid(f"{origin}: {dotted(where)}", describe(content), "a table of tables")
        for name, inner in content.items():
            if not _NAME.fullmatch(name):
                raise Invalid(
                    f"{origin}: {dotted(where)}", name, "a name of letters, digits, '.', '_' and '-', at most 63 long"
                )
            self._named.setdefault(where, {})[name] = None
            self.origins[dotted((*where, name))] = origin
            self._take_table(table, inner, (*where, name), origin)

    def _warn_unknown(self, key: str, near: str, origin: str) -> None:
        hint = f"; nearest known key: {near}" if near else ""
        self.warnings.append(f"{origin}: unknown key {plain(key)} ignored{hint}")

    def _built(self, base: _T, where: Place) -> _T:
        changes: dict[str, Any] = {}
        for name, member in members(type(base)).items():
            place = (*where, name)
            if isinstance(member, Setting):
                if place in self._values:
                    changes[name] = self._values[place]
            elif isinstance(member, SubTable):
                changes[name] = self._built(getattr(base, name), place)
            else:
                given: Mapping[str, Table] = getattr(base, name)
                names = {**dict.fromkeys(given), **self._named.get(place, {})}
                changes[name] = {n: self._built(given.get(n) or member.table(), (*place, n)) for n in names}
        return msgspec.structs.replace(base, **changes)


def typed(kind: Kind, value: object, field: str) -> Any:
    """A value of a document as a value of `kind`, or `Invalid`."""
    match kind, value:
        case (Kind.BOOL, bool()) | (Kind.STRING, str()):
            good = value
        case (Kind.DURATION, int()) if value == 0 and not isinstance(value, bool):
            good = Duration(0.0, "0s")
        case (Kind.INT, int()) if not isinstance(value, bool) and -_INT_LIMIT <= value < _INT_LIMIT:
            good = value
        case (Kind.STRINGS, list() | tuple()) if all(isinstance(item, str) for item in value):
            good = tuple(value)
        case (Kind.PAIRS, dict()) if all(isinstance(item, str) for item in value.values()):
            good = dict(value)
        case (Kind.DURATION, str()):
            good = Duration.parse(value, field)
        case (Kind.SIZE, str()):
            good = Size.parse(value, field)
        case (Kind.DURATION, Duration()) | (Kind.SIZE, Size()):
            good = value
        case _:
            raise Invalid(field, describe(value), kind.value)
    if any("\0" in text for text in _texts(good)):
        raise Invalid(field, describe(value), f"{kind.value} without NUL characters")
    return good


def from_text(kind: Kind, text: str, field: str) -> Any:
    """A value as flags and environment write it; a list is separated by commas. Raises `Invalid`."""
    match kind:
        case Kind.BOOL if text.lower() in _BOOLS:
            return _BOOLS[text.lower()]
        case Kind.INT if _INT.fullmatch(text):
            return typed(kind, int(text), field)
        case Kind.STRINGS:
            return typed(kind, [item.strip() for item in text.split(",")] if text else [], field)
        case Kind.STRING | Kind.DURATION | Kind.SIZE:
            return typed(kind, text, field)
    raise Invalid(field, text, kind.value)


def nearest(where: Place, name: str) -> str:
    """The known key most like `name`: in its own table first, else in any; "" when nothing is like it."""
    import difflib  # a quarter of a MiB that only a misspelt key needs

    own, everywhere = _names_by_table()
    known = own.get(_table_of(where), {})
    for candidates in (known, everywhere):
        if found := difflib.get_close_matches(name[:64], candidates, n=1, cutoff=0.7):
            return candidates[found[0]]
    return ""


def describe(value: object) -> object:
    """What to show of a value in an error: containers may be too deep to print."""
    match value:
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case int() if abs(value) >= _INT_LIMIT:
            return "a larger number"
    return value


def plain(text: str) -> str:
    """Text from a file, short and safe to print in one line."""
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return shown if shown.isprintable() else ascii(shown)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        yield from value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for text in pair)


def _table_of(where: Place) -> Place:
    """The place of a table with the names that administrators choose left out."""
    return (*where[:2], *where[3:]) if where[:2] in (("runtime", "runtimes"), ("runtime", "workloads")) else where


def _names_by_table() -> tuple[dict[Place, dict[str, str]], dict[str, str]]:
    by_table: dict[Place, dict[str, str]] = {}
    everywhere: dict[str, str] = {}

    def add(table: type[Table], where: Place, shown: Place) -> None:
        names = by_table.setdefault(where, {})
        for name, member in members(table).items():
            names[name] = everywhere[name] = dotted((*shown, name))
            if isinstance(member, SubTable):
                add(member.table, (*where, name), (*shown, name))
            elif isinstance(member, NamedTables):
                add(member.table, (*where, name), (*shown, name, "<name>"))

    add(Settings, (), ())
    return by_table, everywhere
