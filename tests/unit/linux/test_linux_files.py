"""Directories that are ours, and who may pass them."""

import stat
from pathlib import Path

import pytest

from criollo.linux.files import PASS, let_pass, make_directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_is_made_closed(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b", 0o700, keep=PASS)
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize(("before", "after"), [(0o711, 0o711), (0o755, 0o700), (0o777, 0o700), (0o710, 0o700), (0o600, 0o700)])
def test_directory_that_was_passable_stays_so(tmp_path: Path, before: int, after: int) -> None:
    tmp_path.chmod(before)
    make_directory(tmp_path, 0o700, keep=PASS)
    assert mode(tmp_path) == after


def test_directory_is_closed_where_nobody_shall_pass(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    make_directory(tmp_path, 0o700)
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize(("before", "after"), [(0o700, 0o711), (0o750, 0o751), (0o755, 0o755)])
def test_letting_pass_shows_nothing(tmp_path: Path, before: int, after: int) -> None:
    tmp_path.chmod(before)
    let_pass(tmp_path)
    let_pass(tmp_path)
    assert mode(tmp_path) == after
