"""Classes of block I/O."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import HostFailed, Invalid, NotFound
from criollo.oci.runtime_spec import BlockIo, ThrottleDevice, WeightDevice
from criollo.specgen import blockio

FILE = b"""
Classes:
  Low:
    - Weight: 80
    - Devices: [a, b]
      ThrottleReadBps: 100M
      ThrottleWriteIOPS: 10k
    - Devices: [b]
      ThrottleReadBps: 1Gi
      Weight: "50"
  Empty: []
"""


def numbers(pattern: str) -> list[tuple[int, int]]:
    return {"a": [(8, 0)], "b": [(8, 16), (8, 32)]}[pattern]


def test_a_later_entry_wins_for_the_same_device() -> None:
    found = blockio.meaning("Low", blockio.parse_classes(FILE, "file")["Low"], numbers)
    assert found == BlockIo(
        weight=80,
        weight_device=(WeightDevice(major=8, minor=16, weight=50), WeightDevice(major=8, minor=32, weight=50)),
        throttle_read_bps_device=(
            ThrottleDevice(major=8, minor=0, rate=100_000_000),
            ThrottleDevice(major=8, minor=16, rate=1 << 30),
            ThrottleDevice(major=8, minor=32, rate=1 << 30),
        ),
        throttle_write_iops_device=tuple(ThrottleDevice(major=8, minor=minor, rate=10_000) for minor in (0, 16, 32)),
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"Classes: {X: [{Weight: 5}]}", "X.Weight"),
        (b"Classes: {X: [{Weight: 2000}]}", "X.Weight"),
        (b"Classes: {X: [{Weight: many}]}", "X.weight"),
        (b"Classes: {X: [{Devices: [a], ThrottleReadBps: 1.5M}]}", "X.read_bps"),
        (b"Classes: {X: [{ThrottleReadBps: 1M}]}", "X"),
        (b"Classes: {X: [{Throttle: 1M}]}", "Throttle"),
        (b"Klasses: {}", "Klasses"),
        (b"[]", "object"),
        (b"a: 1\n---\nb: 2\n", "2 documents"),
    ],
)
def test_a_slip_is_found_when_the_file_is_read(text: bytes, place: str) -> None:
    with pytest.raises(Invalid, match=place):
        blockio.parse_classes(text, "file")


@given(st.binary(max_size=60) | st.text("Classes: {}[]-Weight1kM\n", max_size=40).map(str.encode))
def test_any_bytes_are_classes_or_invalid(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        blockio.parse_classes(raw, "file")


def test_an_empty_file_has_no_classes() -> None:
    assert blockio.parse_classes(b"", "file") == {}


def test_a_class_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "classes").write_text("Classes: {One: [{Weight: 100}], Two: []}")
    find = blockio.open_classes(tmp_path / "classes", reload=False)
    assert find("One", True) == BlockIo(weight=100)
    with pytest.raises(NotFound, match="has One, Two"):
        find("Three", True)


def test_the_file_is_read_anew_where_that_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "classes"
    file.write_text("Classes: {One: [{Weight: 100}]}")
    once, each_time = (blockio.open_classes(file, reload=reload) for reload in (False, True))
    file.write_text("Classes: {One: [{Weight: 200}]}")
    assert (once("One", False).weight, each_time("One", False).weight) == (100, 200)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="cannot read blockio_config_file"):
        blockio.open_classes(tmp_path / "none", reload=False)


def test_a_pattern_without_a_device_is_told_and_no_error(tmp_path: Path) -> None:
    assert blockio.device_numbers(f"{tmp_path}/*") == []
