"""daemon.markers: what the files of the last daemon say, as for CRI-O."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from criollo import __version__
from criollo.config.settings import Settings
from criollo.daemon.markers import Last, Markers


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    return Markers.of(
        Settings(root=str(tmp_path), runroot=str(tmp_path / "run"), version_file_persist=str(tmp_path / "persist"))
    )


@pytest.fixture
def store(markers: Markers) -> Iterator[int]:
    opened = markers.open_store()
    assert opened is not None
    yield opened
    os.close(opened)


def test_a_first_start_is_no_unclean_end(markers: Markers) -> None:
    assert markers.read() == Last(rebooted=True, upgraded=True, unclean=False, wiped=False)


def test_after_a_clean_end_nothing_is_due(markers: Markers, store: int) -> None:
    markers.begin()
    markers.end(store)
    assert markers.read() == Last(rebooted=False, upgraded=False, unclean=False, wiped=False)


def test_an_end_without_the_file_is_unclean(markers: Markers) -> None:
    markers.begin()
    assert markers.read().unclean


@pytest.mark.parametrize(
    ("text", "due"),
    [
        (__version__, False),
        (f'"{__version__}"\n', False),
        (f"{__version__.rpartition('.')[0]}.999", False),
        ("0.0.1", True),
        ("", True),
        ("\xff", True),
    ],
)
def test_only_another_minor_version_is_an_upgrade(markers: Markers, text: str, due: bool) -> None:
    assert markers.persist is not None
    markers.persist.write_text(text)
    assert markers.read().upgraded is due


def test_what_is_not_configured_says_nothing() -> None:
    markers = Markers(None, None, None, Path("/nowhere"))
    assert markers.read() == Last(rebooted=False, upgraded=False, unclean=False, wiped=False)
    assert markers.open_store() is None
    markers.begin()
    markers.end(None)


def test_a_store_that_is_not_made_yet_will_be_where_its_parent_is(tmp_path: Path) -> None:
    fd = Markers(None, None, tmp_path / "clean", tmp_path / "not/made/yet").open_store()
    assert fd is not None
    assert os.fstat(fd).st_ino == tmp_path.stat().st_ino
    os.close(fd)


def test_a_wipe_is_noted_until_the_next_start(markers: Markers, store: int) -> None:
    markers.wiped(store)
    assert markers.read() == Last(rebooted=False, upgraded=False, unclean=False, wiped=True)
    markers.begin()
    assert not markers.read().wiped


def test_files_at_their_usual_paths_follow_another_root() -> None:
    usual = Settings()
    assert Markers.of(usual).version == Path(usual.version_file)
    moved = Markers.of(msgspec.structs.replace(usual, root="/r", runroot="/s"))
    assert (moved.version, moved.clean) == (Path("/s/version"), Path("/r/clean.shutdown"))
    named = Markers.of(msgspec.structs.replace(usual, root="/r", clean_shutdown_file="/x/clean"))
    assert named.clean == Path("/x/clean")


def test_a_start_removes_what_a_killed_daemon_was_writing(markers: Markers, tmp_path: Path) -> None:
    names = (".clean.shutdown.01234567", ".clean.shutdown.supported.01234567", ".persist.01234567", ".version.01234567")
    for left in (*names, "run/.version.01234567", "run/.crio-wipe-done.01234567"):
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).touch()
    markers.begin()
    assert sorted(os.listdir(tmp_path)) == [".version.01234567", "clean.shutdown.supported", "persist", "run"]
    assert os.listdir(tmp_path / "run") == ["version"]
