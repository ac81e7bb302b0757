"""Counters, gauges, histograms and summaries, and their text for Prometheus. Pure; nothing here knows what is counted.

A family is a name, a type and its series by label values. The number of series of a family is bounded: what comes beyond
counts for one whose labels are all `other`, so that no name from outside can take our memory.

Source: Prometheus text exposition format 0.0.4.
"""

import math
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

MAX_SERIES: Final = 1000
OTHER: Final = "other"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_WINDOW_S: Final = 600.0  # of a summary's quantiles
_SAMPLES: Final = 512

Labels = tuple[str, ...]


class Family:
    """Name, help and label names; `lines` are the samples. The prefix comes with the registry."""

    kind = "untyped"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)

    def lines(self, full: str) -> Iterator[str]:
        raise NotImplementedError


class Counter(Family):
    """Only grows, but for series that are taken away."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text, labels)
        self._series: dict[Labels, float] = {} if self.labels else {(): 0.0}

    def add(self, amount: float, *labels: str) -> None:
        series = self._series
        if labels not in series and len(series) >= MAX_SERIES:
            labels = (OTHER,) * len(self.labels)
        series[labels] = series.get(labels, 0.0) + amount

    def inc(self, *labels: str) -> None:
        self.add(1.0, *labels)

    def drop(self, *labels: str) -> None:
        """Take away the series whose first labels these are."""
        for known in [each for each in self._series if each[: len(labels)] == labels]:
            del self._series[known]

    def value(self, *labels: str) -> float:
        return self._series.get(labels, 0.0)

    def lines(self, full: str) -> Iterator[str]:
        for labels, value in list(self._series.items()):
            yield sample(full, self.labels, labels, value)


class Gauge(Family):
    """Asked for its series when somebody reads: pairs of label values and number."""

    kind = "gauge"

    def __init__(
        self, name: str, text: str, read: Callable[[], Sequence[tuple[Labels, float]]], labels: Sequence[str] = ()
    ) -> None:
        super().__init__(name, text, labels)
        self._read = read

    def lines(self, full: str) -> Iterator[str]:
        for labels, value in self._read():
            yield sample(full, self.labels, labels, value)


class ReadCounter(Gauge):
    """A counter that somebody else keeps."""

    kind = "counter"


class Histogram(Family):
    """How many observations are at most each bound."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        super().__init__(name, text)
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, full: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            yield sample(f"{full}_bucket", ("le",), (number(bound),), total)
        yield sample(f"{full}_sum", (), (), self._sum)
        yield sample(f"{full}_count", (), (), total)


class Window:
    """The newest values of one series, for quantiles of the last ten minutes, in 8 KiB."""

    __slots__ = ("_at", "_times", "_values", "count", "total")

    def __init__(self) -> None:
        self._values, self._times = array("d", bytes(8 * _SAMPLES)), array("d", [-math.inf]) * _SAMPLES
        self._at = self.count = 0
        self.total = 0.0

    def observe(self, value: float, now_s: float) -> None:
        at = self._at
        self._values[at], self._times[at] = value, now_s
        self._at = (at + 1) % _SAMPLES
        self.count += 1
        self.total += value

    def quantiles(self, wanted: Sequence[float], now_s: float) -> list[float]:
        """NaN where nothing was observed within the window."""
        since = now_s - _WINDOW_S
        found = sorted(value for value, at in zip(self._values, self._times, strict=True) if at >= since)
        if not found:
            return [math.nan] * len(wanted)
        return [found[min(len(found) - 1, int(quantile * len(found)))] for quantile in wanted]


class Summary(Family):
    """Quantiles, sum and count of windows that somebody else fills, by one label."""

    kind = "summary"
    quantiles = (0.5, 0.9, 0.99)

    def __init__(self, name: str, text: str, windows: Mapping[str, Window], label: str) -> None:
        super().__init__(name, text, (label,))
        self._windows = windows

    def lines(self, full: str) -> Iterator[str]:
        now_s = time.monotonic()
        for key, window in list(self._windows.items()):
            for quantile, value in zip(self.quantiles, window.quantiles(self.quantiles, now_s), strict=True):
                yield sample(full, (*self.labels, "quantile"), (key, number(quantile)), value)
            yield sample(f"{full}_sum", self.labels, (key,), window.total)
            yield sample(f"{full}_count", self.labels, (key,), window.count)


def render(prefix: str, families: Sequence[Family]) -> str:
    """The page that Prometheus reads."""
    lines: list[str] = []
    for family in families:
        full = prefix + family.name
        lines += (f"# HELP {full} {_help(family.text)}", f"# TYPE {full} {family.kind}")
        lines += family.lines(full)
    return "\n".join(lines) + "\n"


def sample(name: str, names: Sequence[str], values: Sequence[str], value: float) -> str:
    """One line. Text of labels may be anything."""
    if not names:
        return f"{name} {number(value)}"
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in zip(names, values, strict=True))
    return f"{name}{{{pairs}}} {number(value)}"


def number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _escaped(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
