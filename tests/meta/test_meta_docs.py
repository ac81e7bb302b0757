"""The pages agree with the tree: rooms, dependencies, settings, make targets."""

import re
import tomllib
from pathlib import Path
from typing import Any

from criollo.config.keys import NamedTables, Setting, Table, members
from criollo.config.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/criollo"
# Rooms that know the settings, or stand below everything.
KNOW_SETTINGS = {"config", "cli", "kpod", "daemon", "engine", "errors", "__main__"}


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def rooms() -> set[str]:
    """The packages and modules directly in criollo."""
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    return packages | {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}


def bare(requirement: str) -> str:
    """The name of a package in a requirement, as package indexes compare it."""
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower().replace("_", "-")


def test_map_shows_exactly_the_rooms_of_the_tree() -> None:
    rows = re.findall(r"^\| *\d+ *\|((?:[^|\\]|\\.)*)\|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    shown = {room for row in rows for room in re.findall(r"`([a-z_]+)`", row)}
    assert shown == rooms() - {"__main__"}, "the table of rooms in docs/architecture.md and src/criollo differ"


def test_every_room_has_a_floor() -> None:
    floors = next(c for c in project()["tool"]["importlinter"]["contracts"] if c["id"] == "floors")["layers"]
    built = {name.strip() for floor in floors for name in floor.split("|") if "(" not in name}
    assert built == rooms() - {"__main__"}, "a room that is built stands without parentheses in the contract"


def test_every_room_but_the_wiring_is_kept_from_settings() -> None:
    contract = next(c for c in project()["tool"]["importlinter"]["contracts"] if c["id"] == "settings")
    assert {name.removeprefix("criollo.") for name in contract["source_modules"]} == rooms() - KNOW_SETTINGS


def test_every_dependency_has_its_line() -> None:
    page = (ROOT / "docs/dependencies.md").read_text().lower()
    declared = project()["project"]
    for requirement in (*declared["dependencies"], *declared["optional-dependencies"]["dev"]):
        assert f"\n| `{bare(requirement)}` |" in page, f"{bare(requirement)} has no line in docs/dependencies.md"


def test_page_of_dependencies_names_no_others() -> None:
    declared = project()["project"]
    known = {bare(entry) for entry in (*declared["dependencies"], *declared["optional-dependencies"]["dev"])}
    shown = set(re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE | re.IGNORECASE))
    assert {name.lower() for name in shown} == known


def test_every_dependency_is_used() -> None:
    module_of = {"protobuf": "google.protobuf", "pyyaml": "yaml"}
    sources = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for requirement in project()["project"]["dependencies"]:
        module = module_of.get(bare(requirement), bare(requirement))
        assert re.search(rf"^\s*(import|from) {re.escape(module)}\b", sources, re.MULTILINE), f"nothing imports {module}"


def test_every_dependency_is_pinned_with_hashes() -> None:
    declared = project()["project"]
    for name, needed in (
        ("run.txt", declared["dependencies"]),
        ("dev.txt", [*declared["dependencies"], *declared["optional-dependencies"]["dev"]]),
    ):
        text = (ROOT / "requirements" / name).read_text()
        pins = re.findall(r"^([a-z0-9.-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)
        assert {bare(entry) for entry in needed} <= {bare(pin) for pin in pins}, f"run scripts/lock.sh: {name}"
        assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)), f"a line of {name} has no hash"


def names(table: type[Table]) -> set[str]:
    """Every key of a table and the tables in it."""
    found: set[str] = set()
    for name, member in members(table).items():
        found |= {name} if isinstance(member, Setting) else names(member.table)
        if isinstance(member, NamedTables):
            found.add(f"{name}.<name>")
    return found


def test_every_setting_has_its_row() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    for name in names(Settings):
        assert f"| `{name}` |" in page or f"{name}" in page, f"{name} is not in docs/configuration.md; run: make docs"


def test_every_make_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    assert targets == set(re.findall(r"^([a-z]+):.* ## ", text, re.MULTILINE))


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
