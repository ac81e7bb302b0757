"""The source tree keeps the rules of the project's style that a program can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/criollo"
GENERATED = SOURCE / "cri/pb"
WALL = 500

BANNED_WORDS = {"manager", "helper", "helpers", "util", "utils", "common", "misc", "data", "info"}
# `info` is the CRI's own word; `base` is for modules of protocols.
ALLOWED_NAMES = {"RuntimeInfo"}

# Where anything may arrive and must not pass: the RPC, the connection, the background loop.
BORDERS = {
    "aio/cleanup.py": "a failure while cleaning up must not hide the first one",
    "aio/http_server.py": "a connection",
    "aio/threads.py": "hands the exception over to the awaiter",
    "cri/calls.py": "an RPC",
    "cri/server.py": "a connection",
    "cri/connection.py": "a connection",
    "cli/main.py": "the command",
    "kpod/main.py": "the command",
    "daemon/main.py": "background loops",
    "daemon/front_door.py": "a connection",
    "daemon/recovery.py": "each object alone: one broken row must not stop the daemon",
    "daemon/sweep.py": "a background loop",
    "pods/collection.py": "a background loop: the node works on without numbers",
    "streaming/listener.py": "a connection",
    "streaming/server.py": "a session: HTTP is over, and an error must not become a reply in the middle of a stream",
    "workers/ahead.py": "hands the exception over to the taker",
    "workers/main.py": "the child's only answer",
}


def modules() -> list[Path]:
    """Every module of ours that is not generated."""
    return sorted(path for path in SOURCE.rglob("*.py") if not path.is_relative_to(GENERATED))


def named(path: Path) -> str:
    """A module's name in a test report."""
    return str(path.relative_to(SOURCE))


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(), str(path))


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_there_are_modules() -> None:
    assert len(modules()) > 30


@pytest.mark.parametrize("path", modules(), ids=named)
def test_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= WALL, f"over {WALL} lines: it has more than one reason to change"
    assert ast.get_docstring(parsed(path)), "no docstring"


@pytest.mark.parametrize("path", modules(), ids=named)
def test_names_are_not_empty_words(path: Path) -> None:
    found = [node.name for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
    bad = [name for name in found if words(name) & BANNED_WORDS and name not in ALLOWED_NAMES]
    assert not bad, f"classes {bad}"
    assert not words(path.stem) & BANNED_WORDS, "module name"


@pytest.mark.parametrize("path", modules(), ids=named)
def test_package_reexports_nothing(path: Path) -> None:
    if path.name != "__init__.py" or path.parent == SOURCE:
        return
    assert len(parsed(path).body) == 1, "a package's __init__ is one docstring"


@pytest.mark.parametrize("path", modules(), ids=named)
def test_todo_has_a_number(path: Path) -> None:
    bad = [line for line in path.read_text().splitlines() if re.search(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))", line)]
    assert not bad, "write TODO(#12): and the issue's number"


def log_calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of the module's logger."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("log", "_log", "logger")
            and node.func.attr in ("debug", "info", "warning", "error", "exception")
        ):
            yield node


@pytest.mark.parametrize("path", modules(), ids=named)
def test_log_messages_are_constant(path: Path) -> None:
    for call in log_calls(parsed(path)):
        plain = call.args and isinstance(call.args[0], (ast.Constant, ast.Name, ast.Attribute))
        assert plain, f"line {call.lineno}: facts are fields, not part of the message"


def caught(handler: ast.ExceptHandler) -> set[str]:
    """The names of the exceptions a handler takes; empty for a bare one."""
    if handler.type is None:
        return {"BaseException"}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {kind.id for kind in kinds if isinstance(kind, ast.Name)}


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether the handler ends by raising."""
    return isinstance(handler.body[-1], ast.Raise)


@pytest.mark.parametrize("path", modules(), ids=named)
def test_broad_except_stands_at_borders_only(path: Path) -> None:
    if named(path) in BORDERS:
        return
    broad = [
        node.lineno
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler) and caught(node) & {"Exception", "BaseException"} and not passes_on(node)
    ]
    assert not broad, f"lines {broad}: name what can happen, or raise again"


def test_borders_exist() -> None:
    gone = [name for name in BORDERS if (SOURCE / name).parent.is_dir() and not (SOURCE / name).exists()]
    assert not gone, f"{gone} are not there any more"


def test_test_files_have_unique_names_and_are_no_packages() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports test files by their bare name"
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_continuous_integration_runs_what_people_run() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands[-2:] == ["make setup", "make test"]
    assert commands[0] == "set -euo pipefail"
