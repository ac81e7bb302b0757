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


def pairs(own: float, other: float) -> dict[str, Any]:
    return {"p50": other / own, "p10": other / own, "p90": other / own, "n": 1}


def row(
    test: str, measure: str, unit: str, own: float, *others: float, names: tuple[str, ...] = ("containerd",)
) -> dict[str, Any]:
    """A measure of ours and of the daemons that are named, with one pair each."""
    by_name = dict(zip(names, others, strict=True))
    values = {name: {"p50": value} for name, value in {"ours": own, **by_name}.items()}
    ratios = {name: pairs(own, other) for name, other in by_name.items()}
    return {"test": test, "measure": measure, "unit": unit, "daemons": values, "ratios": ratios}


def test_each_image_has_its_own_wishes(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"] += [row("pull few:gzip", "PullImage", "ms", 4500, 9000), row("pull few:zstd", "cpu all", "ms", 90, 100)]
    shown = table.table(report)
    assert line(shown, "pull, 1 GB")[-3:] == ["2.00x (2.00..2.00)", "at most 0.45 of its time", "no"]
    assert "| at most 1 of its CPU | yes |" in shown


def bare(measure: str, own: float, *others: float) -> dict[str, Any]:
    return row("pipeline many:gzip", measure, "ms", own, *others, names=("bare", "bare, fetched"))


def test_a_pull_is_judged_beside_the_bare_pipeline_from_files(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"] = [
        bare("wall", 3000, 2500, 2000),
        bare("cpu", 6000, 4000, 4800),
        bare("cpu and digests", 6000, 5000, 6000),
    ]
    report["pipeline"] = {"many:gzip": "igzip"}
    assert table.table(report).splitlines()[-6:] == [
        "| igzip to tar, layers of many:gzip | 3.00 s | 2.50 s bare | ours 1.20x (1.20..1.20) | at most 1.25x | yes |",
        "| – CPU | 6.00 s | 4.00 s bare | ours 1.50x (1.50..1.50) | at most 1.25x | no |",
        "| – CPU, and both digests | 6.00 s | 5.00 s bare | ours 1.20x (1.20..1.20) |  |  |",
        "| – fetched from the registry by curl | 3.00 s | 2.00 s bare | ours 1.50x (1.50..1.50) |  |  |",
        "| – – CPU | 6.00 s | 4.80 s bare | ours 1.25x (1.25..1.25) |  |  |",
        "| – – CPU, and both digests | 6.00 s | 6.00 s bare | ours 1.00x (1.00..1.00) |  |  |",
    ]


PEERS = {"containerd-2.3.4-tuned": {"kind": "tuned containerd", "pod": ""}, "cri-o-1.37.0": {"kind": "cri-o", "pod": "no crun"}}
NAMES = ("containerd", *PEERS)


def test_each_peer_has_a_table_with_its_own_wishes(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"].append(row("pull few:gzip", "cpu all", "ms", 3000, 9000, 5000, 8000, names=NAMES))
    tuned, crio = table.beside(report | {"peers": PEERS}).values()
    assert tuned.splitlines()[0] == table.HEAD[0].replace("containerd", "containerd-2.3.4-tuned")
    assert line(tuned, "– CPU, all") == ["3.00 s", "5.00 s", "1.67x (1.67..1.67)", "", ""]
    assert line(crio, "– CPU, all") == ["3.00 s", "8.00 s", "2.67x (2.67..2.67)", "at most 0.35 of its CPU", "no"]


def test_a_peer_whose_pods_do_not_start_is_told(table: ModuleType, report: dict[str, Any]) -> None:
    tuned, crio = table.beside(report | {"peers": PEERS}).values()
    assert tuned.endswith("\n\nPods are not compared; one started.")
    assert crio.endswith("\n\nPods are not compared; one did not start with this machine's crun: no crun")


def test_what_is_missed_beside_a_peer_names_it(table: ModuleType, report: dict[str, Any]) -> None:
    report["results"] = [row("pull", "PullImage", "ms", 3000, 9000, 5000, 20000, names=NAMES)]
    report["primitives"] = None
    assert table.missed(report | {"peers": PEERS}) == ["pull, 55,000 files in six layers (containerd-2.3.4-tuned)"]


def test_tests_that_did_not_run_have_no_line(table: ModuleType, report: dict[str, Any]) -> None:
    partial = copy.deepcopy(report) | {"results": [], "daemons": {}}
    del partial["primitives"]
    assert table.table(partial).splitlines() == list(table.HEAD)


def test_small_image_is_not_judged_as_the_large_one(table: ModuleType, report: dict[str, Any]) -> None:
    assert line(table.table(report | {"pulled": "tiny"}), "pull, one small layer")[-2:] == ["", ""]


def test_all_lines_have_as_many_cells_as_the_head(table: ModuleType, report: dict[str, Any]) -> None:
    assert {each.count("|") for each in table.table(report).splitlines()} == {table.HEAD[0].count("|")}
