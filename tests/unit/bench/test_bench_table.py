"""The table of `make bench`, from a recorded report."""

import copy
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def table() -> ModuleType:
    """bench/table.py; that directory is a program, no package."""
    spec = importlib.util.spec_from_file_location("bench_table", BENCH / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("report.json").read_text())  # type: ignore[no-any-return]


def line(text: str, label: str) -> list[str]:
    """The cells after the label of the one line that begins with it."""
    (found,) = [each for each in text.splitlines() if each.startswith(f"| {label}")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_figure_below_what_is_wanted_is_not_met(table: ModuleType, report: dict[str, Any]) -> None:
    assert line(table.table(report), "pod start, until") == ["60.1 ms", "105 ms", "1.80x (1.52..2.25)", "1.8x faster", "no"]


def test_rates_are_turned_so_that_more_is_better(table: ModuleType, report: dict[str, Any]) -> None:
    shown = line(table.table(report), "pods started per second")
    assert shown == ["34.8 pods/s", "14.4 pods/s", "2.19x (1.96..3.12)", "2x as many", "yes"]


def test_seconds_are_shown_as_seconds(table: ModuleType, report: dict[str, Any]) -> None:
    assert line(table.table(report), "pull, 55,000 files")[:2] == ["7.09 s", "13.7 s"]


def test_memory_is_judged_by_our_own_value(table: ModuleType, report: dict[str, Any]) -> None:
    assert line(table.table(report), "daemon (RSS), idle")[-2:] == ["at most 45 MiB", "yes"]


def test_overhead_over_the_primitives_is_judged(table: ModuleType, report: dict[str, Any]) -> None:
    assert line(table.table(report), "– overhead over them") == ["15.0 ms", "", "", "at most 8 ms", "no"]


def test_what_is_missed_is_listed(table: ModuleType, report: dict[str, Any]) -> None:
    missed = ["pod start, until its container is seen running", "pull, 55,000 files in six layers", "– overhead over them"]
    assert table.missed(report) == missed


def row(test: str, measure: str, unit: str, own: float, other: float) -> dict[str, Any]:
    pairs = {"p50": other / own, "p10": other / own, "p90": other / own, "n": 1}
    return {"test": test, "measure": measure, "unit": unit, "daemons": {"ours": {"p50": own}, "containerd": {"p50": other}}} | {
        "ratio": pairs
    }


def test_each_image_has_its_own_wishes(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"] += [row("pull few:gzip", "PullImage", "ms", 4500, 9000), row("pull few:zstd", "cpu all", "ms", 90, 100)]
    shown = table.table(report)
    assert line(shown, "pull, 1 GB")[-3:] == ["2.00x (2.00..2.00)", "at most 0.45 of its time", "no"]
    assert "| at most 1 of its CPU | yes |" in shown


def test_a_pull_is_judged_beside_the_bare_pipeline(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"] = [row("pull", "PullImage", "ms", 3000, 9000), row("pull", "cpu with client", "ms", 6000, 9000)]
    report["pipeline"] = {"many:gzip": {"program": "igzip", "wall": 2.5, "cpu": 4.0, "n": 5}}
    shown = table.table(report).splitlines()
    assert shown[-2:] == [
        "| igzip to tar, layers of many:gzip | | 2.50 s bare | ours 1.20x | at most 1.25x | yes |",
        "| – CPU | | 4.00 s bare | ours 1.50x | at most 1.25x | no |",
    ]


def test_digests_are_shown_beside_the_bare_pipeline(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"] = [row("pull", "cpu with client", "ms", 6000, 9000)]
    report["pipeline"] = {"many:gzip": {"program": "igzip", "wall": 2.5, "cpu": 4.0, "digests": 1.0, "n": 5}}
    assert table.table(report).splitlines()[-1] == "| – CPU, and both digests | | 5.00 s bare | ours 1.20x |  |  |"


def test_tests_that_did_not_run_have_no_line(table: ModuleType, report: dict[str, Any]) -> None:
    partial = copy.deepcopy(report) | {"results": [], "daemons": {}}
    del partial["primitives"]
    assert table.table(partial).splitlines() == list(table.HEAD)


def test_small_image_is_not_judged_as_the_large_one(table: ModuleType, report: dict[str, Any]) -> None:
    assert line(table.table(report | {"pulled": "tiny"}), "pull, one small layer")[-2:] == ["", ""]


def test_all_lines_have_as_many_cells_as_the_head(table: ModuleType, report: dict[str, Any]) -> None:
    assert {each.count("|") for each in table.table(report).splitlines()} == {table.HEAD[0].count("|")}
