"""cli.wipe: what is due, as CRI-O's files say."""

from pathlib import Path

import pytest

from criollo.cli.wipe import CONTAINERS, IMAGES, _due
from criollo.config.settings import Settings
from criollo.daemon.markers import Markers


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    found = Markers.of(
        Settings(root=str(tmp_path), runroot=str(tmp_path / "run"), version_file_persist=str(tmp_path / "persist"))
    )
    found.begin()
    return found


def remove(path: Path | None) -> None:
    assert path is not None
    path.unlink()


def test_nothing_is_due_in_the_same_boot_and_version(markers: Markers) -> None:
    assert _due(markers, sure=False) == frozenset()


def test_force_asks_no_files(markers: Markers) -> None:
    assert _due(markers, sure=True) == {CONTAINERS, IMAGES}


def test_a_reboot_takes_containers_once(markers: Markers) -> None:
    remove(markers.version)
    assert _due(markers, sure=False) == {CONTAINERS}
    markers.wiped(None)
    assert _due(markers, sure=False) == frozenset()


def test_an_upgrade_takes_images_and_the_containers_that_need_them(markers: Markers) -> None:
    remove(markers.persist)
    assert _due(markers, sure=False) == {CONTAINERS, IMAGES}


def test_without_version_files_nothing_is_ever_due(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path), version_file="", version_file_persist="", clean_shutdown_file="")
    assert _due(Markers.of(settings), sure=False) == frozenset()
