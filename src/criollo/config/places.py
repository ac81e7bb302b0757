"""Where a key stands: `("api", "listen")`, written `crio.api.listen`; and walks over all of them."""

from collections.abc import Iterator, Mapping

from criollo.config.keys import NamedTables, Setting, SubTable, Table, members
from criollo.config.settings import Settings

Place = tuple[str, ...]


def dotted(where: Place) -> str:
    """The name of a key as people write it: `crio.api.listen`."""
    return ".".join(("crio", *where))


def origin_of(origins: Mapping[str, str], where: Place) -> str:
    """How an error names a key: with the file, variable or flag its value came from, if it has one."""
    key = dotted(where)
    return f"{origins[key]}: {key}" if key in origins else key


def all_settings() -> Iterator[tuple[Place, Setting]]:
    """Every key that stands in a table of fixed name."""

    def walk(table: type[Table], where: Place) -> Iterator[tuple[Place, Setting]]:
        for name, member in members(table).items():
            if isinstance(member, Setting):
                yield (*where, name), member
            elif isinstance(member, SubTable):
                yield from walk(member.table, (*where, name))

    return walk(Settings, ())


def values_of(table: Table, where: Place = ()) -> Iterator[tuple[Place, Setting, object]]:
    """Every key of a configuration with its value, named tables included."""
    for name, member in members(type(table)).items():
        value = getattr(table, name)
        if isinstance(member, Setting):
            yield (*where, name), member, value
        elif isinstance(member, NamedTables):
            for inner, content in value.items():
                yield from values_of(content, (*where, name, inner))
        else:
            yield from values_of(value, (*where, name))


def find_setting(where: Place) -> Setting | None:
    """The key at a place, or None."""
    table: type[Table] = Settings
    names = list(where)
    while names:
        member = members(table).get(names.pop(0))
        if isinstance(member, Setting):
            return None if names else member
        if member is None:
            return None
        names = names[1:] if isinstance(member, NamedTables) else names
        table = member.table
    return None
