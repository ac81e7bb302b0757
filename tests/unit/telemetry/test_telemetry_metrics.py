"""Counters and their text, held against a reader of the format."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.telemetry.metrics import (
    MAX_SERIES,
    OTHER,
    Counter,
    Gauge,
    Histogram,
    ReadCounter,
    Summary,
    Window,
    number,
    render,
    sample,
)

_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\S+)')
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"')
_UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def read(line: str) -> tuple[str, dict[str, str], float]:
    """One line as Prometheus reads it."""
    match = _LINE.fullmatch(line)
    assert match is not None, line
    labels = {name: re.sub(r"\\.", lambda m: _UNESCAPED[m[0]], text) for name, text in _LABEL.findall(match[2] or "")}
    return match[1], labels, float(match[3])


@given(st.text(), st.floats(allow_infinity=False, allow_nan=False))
def test_any_text_of_a_label_and_any_number_come_back(text: str, value: float) -> None:
    name, labels, found = read(sample("name", ("label",), (text,), value))
    assert name == "name"
    assert labels == {"label": text.encode("utf-8", "replace").decode()}
    assert found == value


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.25, "0.25"), (math.inf, "+Inf"), (math.nan, "NaN"), (-2, "-2")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_counter_grows_by_labels_and_loses_what_is_dropped() -> None:
    counter = Counter("total", "Text.", ("name", "call"))
    counter.inc("a", "x")
    counter.add(2, "a", "y")
    counter.inc("b", "x")
    counter.drop("a")
    assert list(counter.lines("total")) == ['total{name="b",call="x"} 1']


def test_series_are_bounded() -> None:
    counter = Counter("total", "Text.", ("name",))
    for at in range(MAX_SERIES + 10):
        counter.inc(f"name {at}")
    counter.inc("name 0")
    assert len(list(counter.lines("total"))) == MAX_SERIES + 1
    assert counter.value(OTHER) == 10
    assert counter.value("name 0") == 2


def test_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram("size", "Text.", (10, 100))
    for value in (1, 10, 11, 1000):
        histogram.observe(value)
    assert list(histogram.lines("size")) == [
        'size_bucket{le="10"} 2',
        'size_bucket{le="100"} 3',
        'size_bucket{le="+Inf"} 4',
        "size_sum 1022",
        "size_count 4",
    ]


def test_quantiles_are_of_the_last_ten_minutes() -> None:
    window = Window()
    window.observe(99.0, 1.0)
    for at in range(100):
        window.observe(at / 100, 1000.0)
    assert window.quantiles((0.5, 0.9, 0.99), 1001.0) == [0.5, 0.9, 0.99]
    assert all(math.isnan(value) for value in window.quantiles((0.5,), 5000.0))
    assert (window.count, round(window.total, 6)) == (101, 148.5)


@given(st.lists(st.floats(0, 1e6), max_size=2000))
def test_window_keeps_count_and_newest_values(values: list[float]) -> None:
    window = Window()
    for value in values:
        window.observe(value, 0.0)
    assert window.count == len(values)
    if values:
        assert window.quantiles((1.0,), 0.0) == [max(values[-512:])]


def test_page_says_help_and_type_of_each_family() -> None:
    window = Window()
    families = [
        Counter("calls_total", "Calls\nof all."),
        Gauge("now", "Now.", lambda: [(("x",), 0.5)], ("kind",)),
        ReadCounter("read_total", "Read.", lambda: [((), 3.0)]),
        Summary("took", "Took.", {"List": window}, "operation"),
    ]
    lines = render("p_", families).splitlines()
    assert lines[:5] == [
        "# HELP p_calls_total Calls\\nof all.",
        "# TYPE p_calls_total counter",
        "p_calls_total 0",
        "# HELP p_now Now.",
        "# TYPE p_now gauge",
    ]
    assert 'p_took{operation="List",quantile="0.99"} NaN' in lines
    assert 'p_took_count{operation="List"} 0' in lines
    for line in lines:
        if not line.startswith("#"):
            read(line)
