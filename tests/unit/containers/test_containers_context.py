"""containers.context: what is told once, and that remembering it has a bound; times that follow each other."""

import pytest

from criollo.containers import context
from criollo.containers.context import Containers


def test_what_is_told_once_is_not_remembered_without_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(context, "_MOST_TOLD", 10)
    containers = object.__new__(Containers)
    containers._told = set()
    for _ in range(2):
        containers.tell_once("no huge pages here", "c1")
    assert caplog.text.count("no huge pages here") == 1
    for number in range(100):
        containers.tell_once(f"name {number}", "c1")
        assert len(containers._told) <= 10


@pytest.mark.parametrize(
    ("earlier", "expected"), [([], 1000), ([10, 900], 1000), ([1000], 1001), ([10, 5000, 900], 5001)], ids=str
)
def test_what_follows_is_later_whatever_the_clock_was_set_to(earlier: list[int], expected: int) -> None:
    containers = object.__new__(Containers)
    containers.clock = lambda: 1000
    assert containers.now_after(iter(earlier)) == expected
