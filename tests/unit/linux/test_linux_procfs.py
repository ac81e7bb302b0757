"""Facts about the kernel."""

import os

import pytest

from criollo.linux.procfs import kernel_version


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.12.3-1-amd64", (6, 12)), ("5.4", (5, 4)), ("4.18.0-513.el8\n", (4, 18)), ("x", (0, 0)), ("", (0, 0)), ("6", (0, 0))],
)
def test_kernel_version_is_read_from_the_release(release: str, expected: tuple[int, int]) -> None:
    assert kernel_version(release) == expected


def test_kernel_version_is_that_of_this_kernel() -> None:
    assert ".".join(map(str, kernel_version())) == ".".join(os.uname().release.split(".")[:2])
