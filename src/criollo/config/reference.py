"""The page docs/configuration.md, written from the description of the settings.

python -m criollo.config.reference > docs/configuration.md
"""

from collections.abc import Iterator
from typing import Final

from criollo.config.keys import NamedTables, Setting, Table, Works, members
from criollo.config.places import Place, dotted
from criollo.config.settings import Settings
from criollo.config.template import toml_value

HEAD: Final = """\
# Configuration

Written from `src/criollo/config` by `make docs`; a test compares them.

`crio` reads `/etc/criollo/criollo.conf` and then every file below `/etc/criollo/criollo.conf.d`, in lexical order, whatever
its name. Where neither exists it reads `/etc/crio/crio.conf` and `/etc/crio/crio.conf.d` as they stand, and listens on
CRI-O's socket, `/var/run/crio/crio.sock`, unless they name another. `-c FILE` and `-d DIRECTORY` name others; `-c "" -d ""`
reads none. The names and meanings are those of crio.conf(5).

The order is: defaults, file, drop-ins, environment, flags. The later value wins, key by key; a list is replaced as a
whole. A runtime handler that two files name gets the keys of both.

What is refused: files that are not TOML in UTF-8, values of a wrong type, values that cannot be; the message names file
and key, and nothing is started. What is warned of, once at start: unknown keys (with the nearest known one), keys
without effect yet, deprecated keys. "later" marks a key that is accepted and has no effect yet.

A flag is `--name value`; a list is repeated flags or one with commas. The variable of a flag is `CONTAINER_` and its name
in capitals; further names are given in brackets. `crio config` prints the configuration in force.
"""


def reference() -> str:
    """The page docs/configuration.md: every key with its default, flag, variable and meaning."""
    return HEAD + "".join(_table(Settings, ()))


def _table(table: type[Table], where: Place) -> Iterator[str]:
    summary = (table.__doc__ or "").split(": [")[0].rstrip(".")
    yield f"\n## [{dotted(where)}]\n\n{summary}.\n\n| key | default | flag | works | meaning |\n|---|---|---|---|---|\n"
    later: list[tuple[type[Table], Place]] = []
    for name, member in members(table).items():
        if isinstance(member, Setting):
            yield _row(member, flags="<name>" not in where)
        else:
            later.append((member.table, (*where, name, "<name>") if isinstance(member, NamedTables) else (*where, name)))
    for inner, place in later:
        yield from _table(inner, place)


def _row(setting: Setting, *, flags: bool) -> str:
    key = setting.key
    variable = f" ({key.env})" if key.env and flags else ""
    flag = f"`--{setting.flag}`{f' `-{key.short}`' if key.short else ''}{variable}" if setting.flag and flags else ""
    works = {Works.LIVE: "yes", Works.LATER: "later", Works.DEAD: "no", Works.IGNORED: "not needed"}[key.works]
    choices = f" One of: {', '.join(repr(choice) for choice in key.choices)}." if key.choices else ""
    instead = f" Deprecated: use {key.deprecated}." if key.deprecated else ""
    default = toml_value(setting.default).replace("\n", " ")
    return f"| `{setting.name}` | `{default}` | {flag} | {works} | {key.help}{choices}{instead} |\n"


if __name__ == "__main__":
    print(reference(), end="")
