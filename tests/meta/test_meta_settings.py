"""A key that is said to work is read by somebody."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from criollo.config.keys import Setting, Table, Works, members
from criollo.config.settings import Settings

SOURCE = Path(__file__).parents[2] / "src/criollo"
CONFIG = SOURCE / "config"
# What the configuration settles by itself: others read the result.
SETTLED = {
    "inherit_default_runtime": "host.py",
    "conmon": "settle.py",
    "conmon_cgroup": "settle.py",
    "conmon_env": "settle.py",
    "default_transport": "check.py",  # there is one
    "stats_collection_period": "stats.py",
    "collection_period": "stats.py",
    "included_pod_metrics": "stats.py",
}


@cache
def read_in(path: Path) -> frozenset[str]:
    """The names of attributes that a module reads."""
    tree = ast.parse(path.read_text())
    return frozenset(each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Load))


@cache
def read_outside() -> frozenset[str]:
    """The names of attributes that modules beyond the configuration read."""
    modules = (path for path in SOURCE.rglob("*.py") if "pb" not in path.parts and not path.is_relative_to(CONFIG))
    return frozenset().union(*(read_in(path) for path in modules))


def settings(table: type[Table], where: str) -> Iterator[tuple[str, Setting]]:
    for name, member in members(table).items():
        if isinstance(member, Setting):
            yield f"{where}.{name}", member
        else:
            yield from settings(member.table, f"{where}.{name}")


WORKING = {place: each.name for place, each in settings(Settings, "crio") if each.key.works is Works.LIVE}


@pytest.mark.parametrize("place", sorted(WORKING))
def test_key_that_works_is_read(place: str) -> None:
    name = WORKING[place]
    readers = read_in(CONFIG / SETTLED[name]) if name in SETTLED else read_outside()
    assert name in readers, f"nobody reads {place}: make it work, or mark it (config.keys.Works)"


def test_settled_keys_are_there() -> None:
    assert SETTLED.keys() <= set(WORKING.values())
