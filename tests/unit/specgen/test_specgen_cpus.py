"""Lists of CPUs, and GOMAXPROCS."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.specgen import cpus


@given(st.frozensets(st.integers(0, 300)))
def test_what_is_written_is_read_back(numbers: frozenset[int]) -> None:
    assert cpus.parse(cpus.written(numbers), "x") == numbers


@given(st.text("0123456789-, ", max_size=12))
def test_any_text_is_a_list_or_invalid(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert bool(cpus.parse(text, "x")) == bool(text)


def test_neighbours_become_ranges() -> None:
    assert cpus.written([8, 0, 1, 2, 1]) == "0-2,8"


@pytest.mark.parametrize(
    ("shares", "quota", "parent", "floor", "expected"),
    [
        (2048, 0, "/kubepods/burstable/pod1", 2, 4),
        (1100, 0, "kubepods-burstable-pod1.slice", 1, 3),
        (2048, 0, "/kubepods/burstable/pod1", 9, 9),
        (2, 0, "/kubepods/besteffort/pod1", 4, 4),
        (2048, 50_000, "/kubepods/burstable/pod1", 4, None),
        (2048, 0, "/kubepods/pod1", 4, None),
        (2048, 0, "/kubepods/burstable/pod1", 0, None),
    ],
)
def test_gomaxprocs_is_twice_the_request_above_a_floor(
    shares: int, quota: int, parent: str, floor: int, expected: int | None
) -> None:
    assert cpus.gomaxprocs(shares=shares, quota_us=quota, cgroup_parent=parent, floor=floor) == expected
