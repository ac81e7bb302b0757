"""Paths as text."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.specgen import paths

GOOD = dict.fromkeys(("/", "/proc", "/sys", "/dev"), stat.S_IFDIR | 0o755)


@pytest.mark.parametrize("path", ["/", "/proc", "/sys", "/dev"])
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFREG, stat.S_IFCHR])
def test_rootfs_with_something_else_where_the_kernel_mounts_is_refused(path: str, kind: int) -> None:
    with pytest.raises(Invalid, match=path):
        paths.check_rootfs({**GOOD, path: kind | 0o777})


def test_rootfs_with_directories_or_nothing_is_fine() -> None:
    paths.check_rootfs(GOOD)
    paths.check_rootfs({**GOOD, "/dev": None})


@pytest.mark.parametrize(
    ("path", "top", "inside"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/", True), ("/", "/a", False)],
)
def test_below_is_by_whole_components(path: str, top: str, inside: bool) -> None:
    assert paths.is_at_or_below(path, top) is inside


@given(st.text(max_size=60))
def test_checked_paths_are_clean_and_stay_so(text: str) -> None:
    try:
        clean = paths.check_absolute(text, "field")
    except Invalid:
        return
    assert clean.startswith("/")
    assert not {"", ".", ".."} & set(clean[1:].split("/")) or clean == "/"
    assert paths.check_absolute(clean, "field") == clean
