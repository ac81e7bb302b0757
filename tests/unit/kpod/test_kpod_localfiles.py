from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.tars import END, entry

from criollo.errors import CriolloError, Damaged
from criollo.kpod.localfiles import Arriving, Reading, base_of, departure
from criollo.workers.landing import Shape


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    before = leaks.descriptors()
    yield
    assert leaks.new_descriptors(before) == []


@pytest.mark.parametrize(
    ("path", "base"),
    [("/a/b", "b"), ("a/", "a"), ("a//", "a"), ("a/.", "a"), ("a/./", "a"), ("/", ""), (".", ""), ("..", ""), ("a/..", "")],
)
def test_the_last_name_of_a_path(path: str, base: str) -> None:
    assert base_of(path) == base


def test_what_departs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    monkeypatch.chdir(tmp_path)
    shapes = {path: departure(path, follow=False)[1:] for path in ("d", "d/", "d/.", ".", "l", "l/", "d/..")}
    assert shapes == {
        "d": (Shape.DIRECTORY, "d"),
        "d/": (Shape.DIRECTORY, "d"),
        "d/.": (Shape.CONTENT, "d"),
        ".": (Shape.CONTENT, tmp_path.name),
        "l": (Shape.FILE, "l"),
        "l/": (Shape.DIRECTORY, "l"),
        "d/..": (Shape.DIRECTORY, tmp_path.name),
    }
    assert departure("l", follow=True).shape is Shape.DIRECTORY
    with pytest.raises(CriolloError, match="cannot copy 'missing'"):
        departure("missing", follow=False)


def arrive(path: Path, archive: bytes, base: str, *, is_content: bool = False) -> None:
    arriving = Arriving(str(path), base=base, is_content=is_content, archive=False)
    try:
        arriving.write(archive)
        arriving.finish()
    finally:
        arriving.close()


def test_a_directory_takes_the_targets_name_and_its_links_stay_inside(tmp_path: Path) -> None:
    tree = entry(b"src/", b"5", mode=b"0000750\0") + entry(b"src/f", content=b"x") + entry(b"src/h", b"1", link=b"src/f") + END
    arrive(tmp_path / "new", tree, "src")
    assert oct((tmp_path / "new").stat().st_mode) == "0o40750"
    assert (tmp_path / "new/f").samefile(tmp_path / "new/h")
    arrive(tmp_path, tree, "src")
    assert (tmp_path / "src/f").read_text() == "x"


def test_what_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    for archive in (
        entry(b"src/", b"5") + entry(b"other") + END,
        entry(b"src/", b"5") + entry(b"srcx/f") + END,
        entry(b"src/", b"5") + entry(b"src/h", b"1", link=b"../f") + END,
        entry(b"src/", b"5") + entry(b"src/../../f") + END,
        END,
    ):
        with pytest.raises(Damaged):
            arrive(tmp_path / "new", archive, "src")
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")) == ["new", "new/src"]


def test_a_file_goes_out_and_in_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1_000_000)
    reading = Reading(departure(str(tmp_path / "f"), follow=False), follow=False)
    pieces = list(iter(reading.read, b""))
    reading.close()
    arrive(tmp_path / "g", b"".join(pieces), "f")
    assert (tmp_path / "g").read_bytes() == b"x" * 1_000_000
    assert len(pieces) > 2
