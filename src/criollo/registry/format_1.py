"""registries.conf of format 1, which has three lists and no tables: what it says, in format 2.

    [registries.search]      registries = ["docker.io"]
    [registries.insecure]    registries = ["registry.example.com:5000"]
    [registries.block]       registries = ["bad.example.com"]

Source: containers-registries.conf(5), section Version 1 format.
"""

from collections.abc import Mapping
from typing import Any, Final

from criollo.errors import Invalid
from criollo.oci import document
from criollo.registry.keys import folded

_LISTS: Final = ("search", "insecure", "block")


def lists_of(table: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """The lists of such a file by name; those that are not there are left out.

    Raises:
        Invalid: they are no lists of strings.
    """
    found = folded(_a_table(table.get("registries", {}), f"{where}: registries"), _LISTS, where)
    lists = {}
    for name in _LISTS:
        field = f"{where}: registries.{name}"
        inner = folded(_a_table(found.get(name, {}), field), ("registries",), field)
        if "registries" in inner:
            lists[name] = document.convert(inner["registries"], list[str], what=f"{field}.registries")
    return lists


def translated(lists: Mapping[str, list[str]]) -> dict[str, Any]:
    """The top table of a file of format 2 that says the same."""
    tables: dict[str, dict[str, Any]] = {}
    for name, key in (("block", "blocked"), ("insecure", "insecure")):
        for host in lists.get(name, ()):
            host = host.rstrip("/")
            tables.setdefault(host, {"location": host})[key] = True
    whole: dict[str, Any] = {"registry": list(tables.values())}
    if "search" in lists:
        whole["unqualified-search-registries"] = lists["search"]
    return whole


def told(lists: Mapping[str, list[str]]) -> str:
    """The same for people, on one line."""
    whole = translated({name: hosts[:8] for name, hosts in lists.items()})
    search = whole.get("unqualified-search-registries")
    lines = [f"unqualified-search-registries = {search}"] if search else []
    for table in whole["registry"]:
        flags = "".join(f" {key} = true" for key in ("blocked", "insecure") if key in table)
        lines.append(f'[[registry]] location = "{table["location"][:255]}"{flags}')
    return "write instead " + "; ".join(lines or ["[[registry]] tables"]).replace("'", '"')


def _a_table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(where, type(value).__name__, "a table")
    return value
