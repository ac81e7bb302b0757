"""Whether a database file is intact, seen from outside: for `crio check`, beside a daemon or without one."""

import contextlib
import sqlite3
from pathlib import Path

from criollo.state.database import EMPTIED

MAX_TOLD = 10


def findings(path: Path) -> list[str]:
    """What SQLite's own quick check says of a database; nothing when it is intact or not there. Blocking."""
    if not path.exists():
        return []
    if not path.stat().st_size:  # which SQLite takes for a new one
        return [f"{path}: {EMPTIED}"]
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            rows = connection.execute(f"PRAGMA quick_check({MAX_TOLD})").fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # its words may hold what the file has for a schema
        return [f"{path}: {error}"]
    return [f"{path}: {text}" for (text,) in rows if text != "ok"]
