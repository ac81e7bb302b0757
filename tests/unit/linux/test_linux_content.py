"""linux.content: what a file has, into another."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.linux import content


@contextmanager
def opened(directory: Path) -> Iterator[tuple[int, int]]:
    source = os.open(directory / "source", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    target = os.open(directory / "target", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield source, target
    finally:
        os.close(source)
        os.close(target)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=9000)), max_size=4), tail=st.integers(0, 9000))
def test_copies_are_equal(tmp_path: Path, pieces: list[tuple[int, bytes]], tail: int) -> None:
    with opened(tmp_path) as (source, target):
        for page, body in pieces:
            os.pwrite(source, body, page * 4096)
        size = os.fstat(source).st_size + tail
        os.ftruncate(source, size)
        content.copy(source, target, size, lambda _: None)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_holes_stay_holes_and_progress_is_told(tmp_path: Path) -> None:
    steps: list[int] = []
    with opened(tmp_path) as (source, target):
        os.pwrite(source, b"x" * 4096, 0)
        os.pwrite(source, b"y" * 4096, 32 << 20)
        size = os.fstat(source).st_size
        content.copy(source, target, size, steps.append)
        assert os.fstat(target).st_blocks * 512 <= 1 << 16
        assert os.fstat(target).st_size == size
    assert sum(steps) < 1 << 20


def test_kernel_that_copies_nothing_itself_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with opened(tmp_path) as (source, target):
        os.pwrite(source, b"abc" * 5000, 8192)
        content.copy(source, target, os.fstat(source).st_size, lambda _: None)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", full)
    with opened(tmp_path) as (source, target):
        os.pwrite(source, b"abc", 0)
        with pytest.raises(OSError, match="full"):
            content.copy(source, target, 3, lambda _: None)


def test_clone_says_whether_it_could(tmp_path: Path) -> None:
    with opened(tmp_path) as (source, target):
        os.pwrite(source, b"abc", 0)
        done = content.clone(source, target)
        assert os.pread(target, 10, 0) == (b"abc" if done else b"")
