"""Letting a created container go: one byte to who waits, nothing at all where nobody does."""

import os
from pathlib import Path

import pytest

from criollo.runtimes.fifo import let_go


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "exec.fifo"
    os.mkfifo(path)
    return path


def test_who_waits_gets_one_byte_and_the_fifo_is_gone(fifo: Path) -> None:
    waiting = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert let_go(fifo.parent)
        assert os.read(waiting, 16) == b"\0"
        assert os.read(waiting, 16) == b""
    finally:
        os.close(waiting)
    assert not fifo.exists()


def test_a_fifo_that_nobody_reads_stays(fifo: Path) -> None:
    assert not let_go(fifo.parent)
    assert fifo.exists()


def test_no_state_is_nobody_waiting(tmp_path: Path) -> None:
    assert not let_go(tmp_path / "absent")


def test_what_is_no_fifo_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "exec.fifo"
    file.write_bytes(b"kept")
    assert not let_go(tmp_path)
    assert file.read_bytes() == b"kept"


def test_a_link_is_not_followed(fifo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "exec.fifo").symlink_to(fifo)
    waiting = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not let_go(other)
        assert os.read(waiting, 1) == b""
    finally:
        os.close(waiting)
