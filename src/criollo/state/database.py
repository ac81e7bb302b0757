"""One SQLite file: opening, schema version, transactions.

A commit in WAL mode with `synchronous=NORMAL` takes about 50 µs, less than a thread hop, so repositories are plain
functions on the loop: commit, swap the record, done. A power cut may lose the last moments of a NORMAL database, never
its consistency; `flush` waits for the disk.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from criollo.errors import CriolloError, Damaged, Exhausted, HostFailed, Unsupported, explain

VERSION: Final = 1


class Database:
    """A connection that belongs to the thread of the loop.

    When the disk is full, `make_room` is asked for some; if it has any, what failed is written once more.
    """

    def __init__(self, path: Path, schema: str, *, make_room: Callable[[], bool] = lambda: False) -> None:
        """Open or create `path` with the tables of `schema`, a file of this package.

        Raises:
            Damaged: the file is no intact database.
            Unsupported: a newer Criollo has written it.
            Exhausted: the disk is full.
        """
        self.path = path
        self._make_room = make_room
        self._written: list[tuple[str, tuple[Any, ...]]] = []  # by the transaction at hand
        with self._told():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = _connect(path)
            try:
                self._prepare(schema)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, schema: str) -> None:
        run = self._connection.execute
        run("PRAGMA synchronous=NORMAL")
        run("PRAGMA foreign_keys=ON")
        run("PRAGMA wal_autocheckpoint=4000")  # the sweeper checkpoints sooner, in a thread
        run("PRAGMA cache_size=-1024")
        found = run("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise Unsupported(f"cannot use {self.path}: schema {found} is of a newer Criollo, this one knows {VERSION}")
        if found == 0:
            text = Path(__file__).with_name(schema).read_text("utf-8")
            self._connection.executescript(f"BEGIN;\n{text}\nPRAGMA user_version={VERSION};\nCOMMIT;")
        broken = run("PRAGMA quick_check(1)").fetchone()[0]
        if broken != "ok":
            raise Damaged(_damage(self.path, broken))

    def close(self) -> None:
        """Close; a write-ahead log that cannot be copied now, on a full disk, is copied after the next start."""
        with contextlib.suppress(CriolloError), self._told():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._told():
            return self._connection.execute(sql, values).fetchall()

    def execute(self, sql: str, *values: Any) -> None:
        with self._told():
            try:
                self._connection.execute(sql, values)
            except sqlite3.OperationalError as error:
                if not _is_full(error) or not self._make_room():
                    raise
                self._execute_again(sql, values)
            if self._connection.in_transaction:
                self._written.append((sql, values))

    def _execute_again(self, sql: str, values: tuple[Any, ...]) -> None:
        """A full disk may have undone the whole transaction: then all of it is written once more."""
        if not self._connection.in_transaction:
            for earlier, its_values in self._written:
                self._connection.execute(earlier, its_values)
        self._connection.execute(sql, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._written.clear()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise _ours(self.path, error) from error
        except OSError as error:
            raise HostFailed(f"cannot open {self.path}: {error.strerror}") from error


def _connect(path: Path) -> sqlite3.Connection:
    """A connection with a write-ahead log; on a disk too full even for the log's index, the only one that may be."""
    for locking in ("NORMAL", "EXCLUSIVE"):  # when it is alone with the file, SQLite keeps the index in memory
        connection = sqlite3.connect(path, isolation_level=None, timeout=5)
        # A row of bytes that are no text is that row's trouble, not the whole file's.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            connection.execute(f"PRAGMA locking_mode={locking}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            connection.close()
            if locking == "EXCLUSIVE" or not _is_full(error):
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise AssertionError(path)


def flush(path: Path) -> None:
    """Bring all that has been committed so far to the disk; blocking: call it in a thread.

    Raises:
        HostFailed: the disk failed.
    """
    with explain(f"flush {path}"):
        fd = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def checkpoint(path: Path) -> None:
    """Copy the write-ahead log into the database, unless it is locked; blocking: call it in a thread.

    Raises:
        Exhausted, HostFailed: it cannot be copied now.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=1)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY":
            raise _ours(path, error) from error


def _ours(path: Path, error: sqlite3.DatabaseError) -> CriolloError:
    name = getattr(error, "sqlite_errorname", "")
    if _is_full(error):
        return Exhausted(f"cannot write {path}: the disk is full; free some space and try again")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Damaged(_damage(path, str(error)))
    return HostFailed(f"cannot use {path}: {error}")


def _is_full(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")


def _damage(path: Path, what: str) -> str:
    return (
        f"database {path} is damaged ({what}); crio check looks at it; stop the daemon, move the file away and start again: "
        "images are pulled again, pods are made again by the kubelet"
    )


IntegrityError = sqlite3.IntegrityError
