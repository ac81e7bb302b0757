"""What of a large file goes to the disk while the rest still comes; what entries become stands in tests/node/workers."""

import os
from pathlib import Path

import pytest

from criollo.linux import libc
from criollo.workers import extract
from criollo.workers.extract import Extractor
from criollo.workers.tar import FILE, Entry


def large(size: int) -> Entry:
    return Entry(b"f", FILE, mode=0o644, uid=0, gid=0, stored=size, size=size, mtime_ns=0, link=b"")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, int]]:
    """Offset and length of what the kernel is told to write."""
    ranges: list[tuple[int, int]] = []
    begin = libc.write_out

    def note(fd: int, offset: int, length: int) -> None:
        ranges.append((offset, length))
        begin(fd, offset, length)

    monkeypatch.setattr(libc, "write_out", note)
    monkeypatch.setattr(extract, "WRITE_OUT_BYTES", 8000)
    monkeypatch.chdir(tmp_path)
    return ranges


@pytest.mark.parametrize("size", [7_999, 8_000, 20_500, 64_000])
def test_a_file_is_written_out_as_it_comes_every_byte_once(told: list[tuple[int, int]], size: int) -> None:
    content = os.urandom(size)
    extractor = Extractor()
    extractor.add(large(size))
    for at in range(0, size, 3_000):
        extractor.write(memoryview(content)[at : at + 3_000])
    extractor.finish()
    assert Path("f").read_bytes() == content
    assert sum(length for _, length in told) == size
    assert [offset for offset, _ in told] == [sum(length for _, length in told[:at]) for at in range(len(told))]


def test_a_small_file_waits_for_the_flush(told: list[tuple[int, int]]) -> None:
    extractor = Extractor()
    extractor.add(large(900))
    extractor.write(memoryview(bytes(900)))
    assert told == []


def test_a_file_system_that_cannot_is_no_failure(told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(22, "no")

    monkeypatch.setattr(libc, "write_out", refuse)
    extractor = Extractor()
    extractor.add(large(16_000))
    extractor.write(memoryview(bytes(16_000)))
    extractor.finish()
    assert Path("f").stat().st_size == 16_000
