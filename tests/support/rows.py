"""A daemon's rows, behind its back."""

import contextlib
import json
import sqlite3
from typing import Any

from support.daemon import Daemon


def rows(daemon: Daemon, table: str) -> dict[str, str]:
    """Id → state of what the database has; another process may read it at any time."""
    with contextlib.closing(sqlite3.connect(f"file:{daemon.root}/state.db?mode=ro", uri=True)) as database:
        return dict(database.execute(f"SELECT id, state FROM {table}").fetchall())


def change(daemon: Daemon, sql: str, *values: str) -> None:
    """Write into the database while no daemon has it."""
    assert daemon.process is None
    with contextlib.closing(sqlite3.connect(daemon.root / "state.db")) as database:
        assert database.execute(sql, values).rowcount == 1
        database.commit()


def reboot(daemon: Daemon) -> None:
    """Let the next daemon believe that the node was rebooted."""
    change(daemon, "UPDATE fact SET value = ? WHERE key = 'boot_id'", "another")


def change_pod(daemon: Daemon, pod: str, **fields: dict[str, Any]) -> None:
    """Put values into the named parts of a pod's document."""
    with contextlib.closing(sqlite3.connect(daemon.root / "state.db")) as database:
        [(text,)] = database.execute("SELECT document FROM pod WHERE id = ?", (pod,)).fetchall()
    document = json.loads(text)
    for name, values in fields.items():
        document[name] = {**document[name], **values}
    change(daemon, "UPDATE pod SET document = ? WHERE id = ?", json.dumps(document), pod)
