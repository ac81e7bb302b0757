"""The CRI log format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.wire import crilog
from criollo.wire.crilog import LogEntry, LogReader

contents = st.binary(max_size=300).map(lambda content: content.replace(b"\n", b""))
entries = st.builds(
    LogEntry,
    at_ns=st.integers(0, 4_000_000_000 * 10**9),
    stream=st.sampled_from(["stdout", "stderr"]),
    partial=st.booleans(),
    content=contents,
)


def test_line_as_conmon_writes_it() -> None:
    line = b"2026-11-21T10:00:00.123456789+00:00 stdout F a whole line"
    assert crilog.parse(line) == LogEntry(1795255200123456789, "stdout", False, b"a whole line")


def test_zones_and_short_fractions() -> None:
    assert crilog.parse(b"1970-01-01T01:00:00.5+01:00 stderr P x") == LogEntry(500_000_000, "stderr", True, b"x")
    assert crilog.parse(b"1970-01-01T00:00:01Z stderr P:tag x") == LogEntry(10**9, "stderr", True, b"x")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"junk",
        b"2026-99-21T10:00:00.1+00:00 stdout F x",
        b"2026-11-21T10:00:00Z stdin F x",
        b"2026-11-21T10:00:00Z stdout F",
    ],
)
def test_lines_that_are_no_entries(line: bytes) -> None:
    assert crilog.parse(line) is None
    reader = LogReader()
    assert list(reader.receive(line + b"\n")) == []
    assert reader.skipped == 1


@given(st.lists(entries, max_size=5), st.integers(1, 40))
def test_round_trip_at_any_split(made: list[LogEntry], size: int) -> None:
    text = b"".join(crilog.format_entry(entry) for entry in made)
    reader = LogReader()
    found = [entry for start in range(0, len(text), size) for entry in reader.receive(text[start : start + size])]
    assert found == made
    assert reader.skipped == 0


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_skipped(data: bytes) -> None:
    reader = LogReader()
    list(reader.receive(data))
    assert reader.skipped <= data.count(b"\n")


def test_endless_line_comes_in_pieces_of_bounded_size() -> None:
    reader = LogReader()
    found = list(reader.receive(b"2026-11-21T10:00:00Z stdout F "))
    for _ in range(20):
        found += reader.receive(b"x" * 65536)
    found += reader.receive(b"y\n2026-11-21T10:00:01Z stdout F next\n")
    assert [entry.partial for entry in found] == [True] * (len(found) - 2) + [False, False]
    assert b"".join(entry.content for entry in found) == b"x" * (20 * 65536) + b"ynext"
    assert max(len(entry.content) for entry in found) <= crilog.MAX_LINE + 65536


def test_endless_junk_is_dropped_and_counted_once() -> None:
    reader = LogReader()
    found = [entry for _ in range(20) for entry in reader.receive(b"x" * 65536)]
    found += reader.receive(b"\n2026-11-21T10:00:01Z stdout F next\n")
    assert [entry.content for entry in found] == [b"next"]
    assert reader.skipped == 1
