"""state.integrity: an intact database, a damaged one, none."""

import sqlite3
from contextlib import closing
from pathlib import Path

from criollo.state.images import ImageRows
from criollo.state.integrity import findings


def test_an_intact_database_and_none_have_no_findings(tmp_path: Path) -> None:
    ImageRows(tmp_path / "images.db").close()
    assert findings(tmp_path / "images.db") == []
    assert findings(tmp_path / "missing.db") == []


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "images.db").write_bytes(b"nonsense" * 1000)
    (text,) = findings(tmp_path / "images.db")
    assert "images.db" in text


def test_damaged_pages_are_told(tmp_path: Path) -> None:
    path = tmp_path / "images.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 500)
        connection.commit()
    with path.open("r+b") as opened:
        opened.seek(3 * 4096)
        opened.write(bytes(range(256)) * 64)
    assert findings(path)
