"""A file's content whatever pieces it comes in; what entries become stands in tests/node/workers."""

import os
from pathlib import Path

import pytest

from criollo.workers.extract import Extractor
from criollo.workers.tar import FILE, Entry


@pytest.mark.parametrize("size", [0, 1, 2_999, 3_000, 20_500])
def test_a_file_has_every_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.chdir(tmp_path)
    content = os.urandom(size)
    extractor = Extractor()
    extractor.add(Entry(b"f", FILE, mode=0o640, uid=0, gid=0, stored=size, size=size, mtime_ns=0, link=b""))
    for at in range(0, size, 3_000):
        extractor.write(memoryview(content)[at : at + 3_000])
    extractor.finish()
    assert Path("f").read_bytes() == content
    assert Path("f").stat().st_mode & 0o777 == 0o640
