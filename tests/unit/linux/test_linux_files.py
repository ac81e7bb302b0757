"""Directories that are ours, and who may pass them; paths that are opened within a root."""

import ctypes
import errno
import os
import stat
from pathlib import Path
from unittest import mock

import pytest

from criollo.linux import files, libc
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


@pytest.mark.parametrize(("given_up", "told"), [(3, []), (1_000_000, [errno.EAGAIN])])
def test_a_walk_that_the_kernel_gives_up_on_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_up: int, told: list[int]
) -> None:
    """As it does for a path with `..` when something is mounted anywhere in that moment."""
    (tmp_path / "a").mkdir()
    left, really, errors = given_up, libc._libc.syscall, []

    def syscall(*args: object) -> int:
        nonlocal left
        left -= 1
        if left >= 0:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return int(really(*args))

    monkeypatch.setattr(libc._libc, "syscall", syscall)
    with files.opened_directory(tmp_path) as root:
        try:
            os.close(files.open_in_root(root, "a/../a", os.O_PATH))
        except OSError as error:
            errors.append(error.errno)
    assert errors == told


def test_a_directory_is_held_by_one_until_it_lets_go(tmp_path: Path) -> None:
    with files.opened_directory(tmp_path) as first, files.opened_directory(tmp_path) as second:
        assert files.try_lock(first)
        assert files.try_lock(first)
        assert not files.try_lock(second)
    with files.opened_directory(tmp_path) as third:
        assert files.try_lock(third)


def killed_within(path: Path) -> None:
    """Write a file as who is killed before it has its name."""
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("rename", "unlink"):
            patch.setattr(os, verb, mock.Mock(side_effect=PermissionError))
        with pytest.raises(PermissionError):
            files.write_atomic(path, b"half")


def test_what_a_killed_writer_left_is_removed_of_the_files_that_are_meant(tmp_path: Path) -> None:
    for name in ("one", ".two", "three.deadbeef"):
        files.write_atomic(tmp_path / name, b"whole")
        killed_within(tmp_path / name)
        killed_within(tmp_path / name)
    files.remove_unfinished(tmp_path, "one".__eq__)
    assert len(os.listdir(tmp_path)) == 7
    files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".two", "one", "three.deadbeef"]


@pytest.mark.parametrize("name", [".deadbeef", "one.deadbeef", ".one.deadbee", ".one.DEADBEEF", ".one.deadbeef.swp", ".one"])
def test_what_others_keep_is_not_taken_for_unfinished(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / ".directory.deadbeef").mkdir()
    files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([".directory.deadbeef", name])
    files.remove_unfinished(tmp_path / "absent")
