import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks

from criollo.errors import CriolloError, HostFailed
from criollo.workers.landing import Landing, Shape, land


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """A place with a file, a directory, links to both, and one that dangles; nothing stays open."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "dl").symlink_to("d")
    (tmp_path / "fl").symlink_to(tmp_path / "f")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("d/later")
    before = leaks.descriptors()
    yield tmp_path
    assert leaks.new_descriptors(before) == []


def where(landing: Landing) -> str:
    """The path that a landing stands for."""
    path = os.readlink(f"/proc/self/fd/{landing.top}")
    os.close(landing.top)
    return os.path.join(path, os.fsdecode(landing.name))


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("d", Shape.FILE, "d/base"),
        ("d/", Shape.FILE, "d/base"),
        ("d/.", Shape.FILE, "d/base"),
        ("dl", Shape.FILE, "d/base"),
        ("d/..", Shape.FILE, "base"),
        ("f", Shape.FILE, "f"),
        ("fl", Shape.FILE, "f"),
        ("new", Shape.FILE, "new"),
        ("gone", Shape.FILE, "d/later"),
        ("dl/new", Shape.FILE, "d/new"),
        ("d", Shape.DIRECTORY, "d/base/"),
        ("new", Shape.DIRECTORY, "new/"),
        ("new/", Shape.DIRECTORY, "new/"),
        ("new/.", Shape.DIRECTORY, "new/"),
        ("d", Shape.CONTENT, "d/"),
        ("new", Shape.CONTENT, "new/"),
        ("d", Shape.ARCHIVE, "d/"),
        ("dl/", Shape.ARCHIVE, "d/"),
    ],
)
def test_a_copy_goes_where_docker_puts_it(top: Path, path: str, shape: Shape, expected: str) -> None:
    assert where(land(os.fsencode(f"{top}/{path}"), shape, b"base")) == f"{top}/{expected}"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("new/", Shape.FILE),
        ("no/new", Shape.FILE),
        ("no/new", Shape.DIRECTORY),
        ("no/new/", Shape.DIRECTORY),
        ("f", Shape.DIRECTORY),
        ("f", Shape.CONTENT),
        ("f", Shape.ARCHIVE),
        ("f/", Shape.FILE),
        ("f/x", Shape.FILE),
        ("new", Shape.ARCHIVE),
        ("new/", Shape.ARCHIVE),
        ("loop", Shape.FILE),
        ("loop/x", Shape.FILE),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_made(top: Path, path: str, shape: Shape) -> None:
    before = sorted(top.rglob("*"))
    with pytest.raises(CriolloError, match="cannot copy to"):
        land(os.fsencode(f"{top}/{path}"), shape, b"base")
    assert sorted(top.rglob("*")) == before


def test_a_directory_says_whether_it_was_made(top: Path) -> None:
    for is_new in (True, False):
        landing = land(os.fsencode(top / "d"), Shape.DIRECTORY, b"base")
        os.close(landing.top)
        assert landing.is_new == is_new


def test_a_name_that_is_taken_by_a_file_is_refused(top: Path) -> None:
    (top / "d/base").touch()
    with pytest.raises(HostFailed, match="'base' is there, and no directory"):
        land(os.fsencode(top / "d"), Shape.DIRECTORY, b"base")


def test_nothing_goes_where_the_kernel_shows_itself() -> None:
    for path in (b"/proc/self", b"/proc/sys/kernel/hostname", b"/sys"):
        with pytest.raises(HostFailed, match="the kernel's own"):
            land(path, Shape.FILE, b"x")


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(HostFailed, match="the path is empty"):
        land(b"", Shape.FILE, b"x")
