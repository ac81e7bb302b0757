"""What one key of the configuration is: its type, default, help, its flag, and whether it works yet.

A table of the file is a `Table` subclass; a key is a field of it, `Annotated` with a `Key`. Everything else (reading,
flags, environment, template, reference page) walks this description, so that a key is written down once.
"""

import functools
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, get_args, get_origin

import msgspec

from criollo.config.values import Duration, Size


class Works(StrEnum):
    """What setting a key does."""

    LIVE = "works"
    LATER = "accepted; no effect yet"
    DEAD = "accepted; has no effect any more"
    IGNORED = "accepted and ignored: not needed here"


class Key(msgspec.Struct, frozen=True):
    """The description of one key. `flag` and `env` stand where they differ from the rule (see `Setting`)."""

    help: str
    works: Works = Works.LIVE
    absolute: bool = False  # an absolute path; empty only where the default is, or for `none`
    none: bool = False  # empty switches it off
    choices: tuple[str, ...] = ()
    deprecated: str = ""  # what to use instead
    flag: str | None = None  # "" for a key without a flag
    short: str = ""
    env: str = ""  # a second name of its environment variable


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the configuration."""


class Kind(StrEnum):
    """The types a key may have; the text is what an error calls them."""

    STRING = "a string"
    BOOL = "true or false"
    INT = "a whole number of 64 bits"
    STRINGS = "a list of strings"
    PAIRS = "a table of strings"
    DURATION = "a duration like '90s'"
    SIZE = "a size like '12MiB'"


_KINDS: Final[dict[Any, Kind]] = {
    str: Kind.STRING,
    bool: Kind.BOOL,
    int: Kind.INT,
    tuple[str, ...]: Kind.STRINGS,
    Mapping[str, str]: Kind.PAIRS,
    Duration: Kind.DURATION,
    Size: Kind.SIZE,
}


class Setting(msgspec.Struct, frozen=True):
    """A key with its place in its table."""

    name: str
    kind: Kind
    default: object
    key: Key

    @property
    def flag(self) -> str:
        """The name of its flag without dashes, or "" when it has none."""
        return self.name.replace("_", "-") if self.key.flag is None else self.key.flag

    @property
    def environment(self) -> tuple[str, ...]:
        """The names of its environment variables; the first is the rule, `CONTAINER_` and the flag."""
        if not self.flag:
            return ()
        names = (f"CONTAINER_{self.flag.replace('-', '_').upper()}", self.key.env)
        return tuple(name for name in names if name)


class SubTable(msgspec.Struct, frozen=True):
    """A table within a table."""

    name: str
    table: type[Table]


class NamedTables(msgspec.Struct, frozen=True):
    """A table whose keys are names that the administrator chooses, each a table again."""

    name: str
    table: type[Table]
    key: Key


Member = Setting | SubTable | NamedTables


@functools.cache
def members(table: type[Table]) -> Mapping[str, Member]:
    """The keys and tables that `table` may hold, by name, in the order of their definition."""
    found: dict[str, Member] = {}
    for field in msgspec.structs.fields(table):
        bare, key = _unwrapped(field.type)
        if isinstance(bare, type) and issubclass(bare, Table):
            found[field.name] = SubTable(field.name, bare)
        elif key is None:
            raise TypeError(f"{table.__name__}.{field.name} has no Key")
        elif get_origin(bare) is Mapping and issubclass(get_args(bare)[1], Table):
            found[field.name] = NamedTables(field.name, get_args(bare)[1], key)
        else:
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            found[field.name] = Setting(field.name, _KINDS[bare], default, key)
    return found


def _unwrapped(annotation: Any) -> tuple[Any, Key | None]:
    metadata = getattr(annotation, "__metadata__", ())
    key = next((entry for entry in metadata if isinstance(entry, Key)), None)
    return (annotation.__origin__ if metadata else annotation), key
