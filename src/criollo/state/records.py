"""Pods and containers: rows in state.db, records in memory.

Memory holds every record and is replaced after the row is committed, so nobody sees a half step; lists and statuses
read only memory. What has happened anyway (`keep`) is in memory even while the disk is full, and its row follows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from criollo.errors import CriolloError, Exists, Invalid, NotFound, WrongState
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId, PodId
from criollo.model.pod import Pod, PodState
from criollo.state.database import Database, IntegrityError
from criollo.telemetry.log import get_logger

log = get_logger(__name__)
R = TypeVar("R", Pod, Container)

_HALF_MADE: Final = (PodState.CREATING, ContainerState.CREATING)
_VANISHING: Final = (PodState.REMOVING, ContainerState.REMOVING)


class BrokenRow(NamedTuple):
    """A row whose document nobody can read any more; `pod_id` is the owner of a container, else empty."""

    id: str
    pod_id: str


class _Table(Generic[R]):
    """One kind of record. `_keys` gives the columns beside id, name, state and document; `noun` and `field` stand in errors.

    Clients see what is neither half made nor vanishing, and not what waits in `uncollected` for its client to ask again.
    """

    noun: str
    field: str

    def __init__(self, database: Database, table: str, kind: type[R]) -> None:
        self._database, self._table = database, table
        self.uncollected: set[str] = set()
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()
        self._records: dict[str, R] = {}
        self._names: dict[str, str] = {}
        self._unsaved: set[str] = set()
        self.changed: Callable[[R | None, R | None], None] = lambda before, after: None  # after each change of memory
        self.broken: list[BrokenRow] = []
        owner = "pod_id" if kind is Container else "''"
        for row_id, pod_id, document in database.query(f"SELECT id, {owner}, document FROM {table}"):  # noqa: S608
            self._load(BrokenRow(row_id, pod_id), document)

    def _load(self, row: BrokenRow, document: str) -> None:
        try:
            record = self._decoder.decode(document)
            if record.id != row.id:
                raise msgspec.ValidationError(f"the document is of {record.id}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.error("unreadable record; it will be torn down", table=self._table, id=row.id, error=error)
            self.broken.append(row)
            return
        self._records[record.id] = record
        self._names[record.name] = record.id

    def get(self, record_id: str) -> R | None:
        return self._records.get(record_id)

    def by_name(self, name: str) -> R | None:
        found = self._names.get(name)
        return None if found is None else self._records[found]

    def visible(self) -> list[R]:
        """All that a client may see."""
        return [record for record in self._records.values() if self.is_visible(record)]

    def is_visible(self, record: R) -> bool:
        """Not half made, not vanishing; what could not be removed is seen again."""
        return self._is_collected(record) and (record.state not in _VANISHING or bool(record.trouble))

    def find(self, text: str) -> R:
        """The one that a client means by an id or an unambiguous beginning of it.

        Raises:
            Invalid: the id is empty, or several begin so.
            NotFound: there is none.
        """
        found = self.find_any(text)
        if found is None:
            raise NotFound(self.noun, text)
        return found

    def find_any(self, text: str, *, vanishing: bool = False) -> R | None:
        """As `find`, None where there is none; `vanishing`: what is being removed counts, too.

        Raises:
            Invalid: the id is empty, or several begin so.
        """
        if not text:
            raise Invalid(self.field, text, f"the id of a {self.noun}")
        is_meant = self._is_collected if vanishing else self.is_visible
        found = [record for record in self._begun(text) if is_meant(record)]
        if len(found) > 1:
            raise Invalid(self.field, text, f"more digits: the ids of {len(found)} of them begin so")
        return found[0] if found else None

    def _is_collected(self, record: R) -> bool:
        """Whether a client has got to know of it."""
        return record.state not in _HALF_MADE and record.id not in self.uncollected

    def _begun(self, prefix: str) -> Iterable[R]:
        """All whose id begins so; an exact match alone."""
        exact = self._records.get(prefix)
        if exact is not None:
            return (exact,)
        return (record for record_id, record in self._records.items() if record_id.startswith(prefix))

    def all(self) -> list[R]:
        return list(self._records.values())

    def __iter__(self) -> Iterator[R]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._records

    def insert(self, record: R) -> R:
        """Reserve the record's name.

        Raises:
            Exists: another object has the name.
        """
        columns = {"id": record.id, "name": record.name, "state": str(record.state), **self._keys(record)}
        marks = ", ".join("?" * (len(columns) + 1))
        sql = f"INSERT INTO {self._table} ({', '.join(columns)}, document) VALUES ({marks})"  # noqa: S608
        try:
            self._database.execute(sql, *columns.values(), self._encode(record))
        except IntegrityError as error:
            holder = self.by_name(record.name)
            raise Exists(self._table, record.name, holder.id if holder else str(error)) from error
        self._records[record.id] = record
        self._names[record.name] = record.id
        self.changed(None, record)
        return record

    def put(self, record: R) -> R:
        """Replace a record that is there."""
        assert record.id in self._records, record.id
        sql = f"UPDATE {self._table} SET state = ?, document = ? WHERE id = ?"  # noqa: S608
        self._database.execute(sql, str(record.state), self._encode(record), record.id)
        self._unsaved.discard(record.id)
        return self._replace(record)

    def keep(self, record: R) -> R:
        """`put` for what has happened already: it counts even if the row cannot be written now; `save` retries that."""
        try:
            return self.put(record)
        except CriolloError as error:
            log.warning("row not written; trying again later", table=self._table, id=record.id, error=error)
            self._unsaved.add(record.id)
            return self._replace(record)

    def _replace(self, record: R) -> R:
        before, self._records[record.id] = self._records[record.id], record
        self.changed(before, record)
        return record

    def save(self) -> None:
        """Write the rows that `keep` could not.

        Raises:
            CriolloError: the database still takes nothing.
        """
        for record_id in sorted(self._unsaved):
            self.put(self._records[record_id])

    def delete(self, record_id: str) -> None:
        """Forget a record; absence is success.

        Raises:
            WrongState: another row needs this one.
        """
        try:
            self._database.execute(f"DELETE FROM {self._table} WHERE id = ?", record_id)  # noqa: S608
        except IntegrityError as error:
            raise WrongState(self.noun, record_id, "needed by a row of another kind", "that one removed first") from error
        self._unsaved.discard(record_id)
        record = self._records.pop(record_id, None)
        if record is not None:
            del self._names[record.name]
            self.changed(record, None)

    def _encode(self, record: R) -> str:
        """Raises Invalid: some text in it is no UTF-8."""
        try:
            return self._encoder.encode(record).decode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise Invalid(f"record of {self.noun} {record.id}", error.object[:100], "text that is UTF-8") from error

    def _keys(self, record: R) -> Mapping[str, str]:
        return {}


class PodRows(_Table[Pod]):
    """All pod sandboxes of the node."""

    noun, field = "pod sandbox", "pod_sandbox_id"

    def __init__(self, database: Database) -> None:
        super().__init__(database, "pod", Pod)


class ContainerRows(_Table[Container]):
    """All containers of the node."""

    noun, field = "container", "container_id"

    def __init__(self, database: Database) -> None:
        super().__init__(database, "container", Container)

    def of_pod(self, pod_id: str) -> list[Container]:
        return [container for container in self._records.values() if container.pod_id == pod_id]

    def _keys(self, record: Container) -> Mapping[str, str]:
        return {"pod_id": record.pod_id}


class State:
    """state.db: pods, containers and facts; the owner of the root directory opens it, nobody else."""

    def __init__(self, path: Path, *, make_room: Callable[[], bool] = lambda: False) -> None:
        self._database = Database(path, "schema.sql", make_room=make_room)
        self.path = path
        try:
            self.pods = PodRows(self._database)
            self.containers = ContainerRows(self._database)
        except BaseException:
            self._database.let_go()
            raise

    def pod(self, pod_id: PodId) -> Pod:
        """A pod that must be there."""
        pod = self.pods.get(pod_id)
        assert pod is not None, pod_id
        return pod

    def container(self, container_id: ContainerId) -> Container:
        """A container that must be there."""
        container = self.containers.get(container_id)
        assert container is not None, container_id
        return container

    def fact(self, key: str) -> str | None:
        rows = self._database.query("SELECT value FROM fact WHERE key = ?", key)
        return rows[0][0] if rows else None

    def set_fact(self, key: str, value: str) -> None:
        self._database.execute(
            "INSERT INTO fact VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value
        )

    def close(self) -> None:
        self._database.close()
