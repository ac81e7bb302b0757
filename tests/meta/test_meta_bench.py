"""The programs of `make bench` are whole, although no other test runs them: they need root and half an hour."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted([*(ROOT / "bench").glob("*.py"), ROOT / "scripts/bench.py"])
OURS = {path.stem for path in (ROOT / "bench").glob("*.py")}
KNOWN = {*sys.stdlib_module_names, "criollo", "grpc", *OURS}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_program_of_bench_compiles(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_program_of_bench_imports_only_what_setup_installs(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert plain | named <= KNOWN
