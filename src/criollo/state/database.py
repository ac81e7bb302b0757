"""One SQLite file: opening, schema version, transactions.

A commit in WAL mode with `synchronous=NORMAL` takes about 50 µs, less than a thread hop, so repositories are plain
functions on the loop: commit, swap the record, done. A power cut may lose the last moments of a NORMAL database, never
its consistency; `Database.flush` waits for the disk.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from criollo.errors import CriolloError, Damaged, Exhausted, HostFailed, Unsupported, explain
from criollo.linux import files

VERSION: Final = 1
EMPTIED: Final = "it is empty"
_ROOM_BYTES: Final = 256 << 10  # a full disk has less, also in its last corners
_TRIES, _PAUSE_S = 10, 0.02


class Database:
    """A connection that belongs to the thread of the loop.

    When the disk is full, `make_room` is asked for some; if there is any, what failed is written once more.
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
        self._may_take = True
        self._written: list[tuple[str, tuple[Any, ...]]] = []  # by the transaction at hand
        text = Path(__file__).with_name(schema).read_text("utf-8")
        with self._told(opening=True):
            if not path.exists():
                _create(path, text)
            _refuse_emptied(path)
            self._connection, self._log_fd = _connect(path), -1
            try:
                # Of before the first write: the kernel tells each descriptor of the writes that were lost since it was opened.
                self._log_fd = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
                self._prepare(text)
            except BaseException:
                self.let_go()
                raise

    def _prepare(self, schema: str) -> None:
        run = self._connection.execute
        run("PRAGMA synchronous=NORMAL")
        run("PRAGMA foreign_keys=ON")
        run("PRAGMA wal_autocheckpoint=4000")  # the sweeper checkpoints sooner, in a thread
        run("PRAGMA cache_size=-1024")
        found = run("PRAGMA user_version").fetchone()[0]
        if found <= 0:
            raise Damaged(damage(self.path, f"schema {found}"))
        if found > VERSION:
            raise Unsupported(
                f"cannot use {self.path}: schema {found} is of a newer Criollo, this one knows {VERSION}; "
                "run that one, or move the file away"
            )
        broken = run("PRAGMA quick_check(1)").fetchone()[0]
        if broken != "ok":
            raise Damaged(damage(self.path, broken))
        missing = _missing(schema, self._connection)
        if missing:
            raise Damaged(damage(self.path, f"table {missing[0]} is not as it should be"))
        [(table,)] = run("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name LIMIT 1").fetchall()
        run(f'DELETE FROM "{table}" WHERE 0')  # noqa: S608  # writes nothing, and fails where nothing can be written
        _open_beside(self.path)

    def close(self) -> None:
        """Close; a write-ahead log that cannot be copied now, on a full disk, is copied after the next start."""
        with contextlib.suppress(CriolloError), self._told():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.let_go()

    def let_go(self) -> None:
        """Close, and copy nothing."""
        fd, self._log_fd = self._log_fd, -1
        if fd >= 0:
            os.close(fd)
        self._connection.close()

    def flush(self) -> None:
        """Bring all that has been committed so far to the disk; blocking: call it in a thread.

        Raises:
            HostFailed: the disk failed, now or since the last time.
        """
        with explain(f"flush {self.path}"):
            os.fsync(self._log_fd)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._told():
            return self._connection.execute(sql, values).fetchall()

    def execute(self, sql: str, *values: Any) -> None:
        with self._told():
            try:
                self._connection.execute(sql, values)
            except sqlite3.OperationalError as error:
                if not _is_full(error) or not ((self._may_take and self._make_room()) or self._has_room()):
                    raise
                self._execute_again(sql, values)
            if self._connection.in_transaction:
                self._written.append((sql, values))

    def _execute_again(self, sql: str, values: tuple[Any, ...]) -> None:
        """A full disk may have undone the whole transaction: then all of it is written once more.

        Room that has just been made counts as free, and cannot be had before the file system's journal has it.
        """
        for left in reversed(range(_TRIES)):
            try:
                if not self._connection.in_transaction:
                    for earlier, its_values in self._written:
                        self._connection.execute(earlier, its_values)
                self._connection.execute(sql, values)
            except sqlite3.OperationalError as error:
                if not left or not _is_full(error) or not self._has_room():
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def _has_room(self) -> bool:
        return files.free_bytes(self.path.parent) >= _ROOM_BYTES

    @contextlib.contextmanager
    def transaction(self, *, can_wait: bool = False) -> Iterator[None]:
        """All or nothing. What `can_wait` for another time is not worth the room that is held back: on a disk that somebody
        goes on filling it would be gone."""
        self._may_take = not can_wait
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._may_take = True
            self._written.clear()

    @contextlib.contextmanager
    def _told(self, *, opening: bool = False) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            if opening and getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY":
                raise Damaged(damage(self.path, str(error))) from error  # its header says so: the file was opened for writing
            raise _ours(self.path, error) from error
        except UnicodeDecodeError as error:  # what SQLite says of a file holds parts of it
            raise Damaged(damage(self.path, "its schema is no text")) from error
        except OSError as error:
            raise HostFailed(f"cannot open {self.path}: {error.strerror}") from error


def _create(path: Path, schema: str) -> None:
    """Make a database, which has its name when the disk has it with all its tables: one without was emptied."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=MEMORY")
            connection.executescript(f"BEGIN;\n{schema}\nPRAGMA user_version={VERSION};\nCOMMIT;")  # flushes it
        for suffix in ("-wal", "-shm"):  # of a file that was moved away: SQLite would take them for this one's
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    with files.opened_directory(os.path.realpath(path.parent)) as directory:
        os.fsync(directory)


def _refuse_emptied(path: Path) -> None:
    """SQLite takes a file without a byte for a new database, whatever was in it, and drops the log beside it."""
    if not path.stat().st_size:
        raise Damaged(damage(path, EMPTIED))


def _missing(schema: str, connection: sqlite3.Connection) -> list[str]:
    """The tables of a schema that are not, or not so, in a database."""
    with contextlib.closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(schema)
        return sorted({table for table, _ in _shape(ours) - _shape(connection)})


def _shape(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Tables with their columns, types, keys and what these refer to."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        (table, str((about, *row[1:])))
        for table in tables
        for about in ("table_info", "foreign_key_list")
        for row in connection.execute(f"SELECT * FROM pragma_{about}(?)", (table,)).fetchall()  # noqa: S608
    }


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


def _open_beside(path: Path) -> None:
    """A second connection for a moment, as `checkpoint` opens it: SQLite keeps its descriptor for the next one, since closing
    it would drop the first one's locks (POSIX). What stays open for good is so from the start on, and no leak later."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()


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
    if name == "SQLITE_ERROR" or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):  # an error: other tables than ours
        return Damaged(damage(path, str(error)))
    return HostFailed(f"cannot use {path}: {error}")


def _is_full(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")


def damage(path: Path, what: str) -> str:
    """The message about a database that cannot be relied on."""
    return (
        f"database {path} is damaged ({what}); crio check looks at it; stop the daemon, move the file away and start again: "
        "images are pulled again, pods are made again by the kubelet"
    )


IntegrityError = sqlite3.IntegrityError
