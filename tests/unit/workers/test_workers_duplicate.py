"""Copies of what the node has: what comes along, and what does not."""

import os
from pathlib import Path

import pytest

from criollo.errors import Exhausted, Invalid
from criollo.workers.duplicate import duplicate
from criollo.workers.messages import Duplicated, DuplicateJob


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A source with what a directory may have."""
    source = tmp_path / "secrets"
    (source / "below").mkdir(parents=True)
    (source / "key").write_text("k")
    (source / "key").chmod(0o640)
    (source / "below" / "deep").write_text("d")
    (source / "link").symlink_to("key")
    (source / "gone").symlink_to("nowhere")
    (source / "loop").symlink_to(".")
    os.mkfifo(source / "pipe")
    return source


def copy(source: Path, target: Path, *, limit_bytes: int = 1000, limit_entries: int = 10) -> Duplicated:
    owner = os.getuid(), os.getgid()
    return duplicate(
        DuplicateJob(path=str(source), target=str(target), owner=owner, limit_bytes=limit_bytes, limit_entries=limit_entries)
    )


def test_a_directory_is_copied_with_its_modes_and_links_followed(tmp_path: Path, secrets: Path) -> None:
    target = tmp_path / "bundle/defaults/0"
    assert copy(secrets, target) == Duplicated(left_bytes=997, left_entries=6)
    assert sorted(os.listdir(target)) == ["below", "key", "link"]
    assert (target / "link").read_text() == "k"
    assert not (target / "link").is_symlink()
    assert (target / "below" / "deep").read_text() == "d"
    assert (target / "key").stat().st_mode & 0o777 == 0o640
    (secrets / "key").write_text("changed")
    assert (target / "key").read_text() == "k"


def test_a_file_may_be_a_source_and_what_is_not_there_is_told(tmp_path: Path, secrets: Path) -> None:
    copy(secrets / "key", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "k"
    assert copy(secrets / "none", tmp_path / "other").missing


def test_what_is_neither_file_nor_directory_is_refused(tmp_path: Path, secrets: Path) -> None:
    with pytest.raises(Invalid, match="pipe"):
        copy(secrets / "pipe", tmp_path / "copy")


@pytest.mark.parametrize("limits", [{"limit_bytes": 2}, {"limit_entries": 3}])
def test_more_than_the_limits_is_refused(tmp_path: Path, secrets: Path, limits: dict[str, int]) -> None:
    with pytest.raises(Exhausted, match="secrets"):
        copy(secrets, tmp_path / "copy", **limits)
