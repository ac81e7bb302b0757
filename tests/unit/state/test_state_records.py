"""Rows and memory say the same, after any number of steps and after opening again."""

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from criollo.errors import Damaged, Exhausted, Exists, HostFailed, Invalid, NotFound, Unsupported, WrongState
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId, new_id
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.state import database
from criollo.state.records import State

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


def pod(name: str = "p", **fields: Any) -> Pod:
    config = PodConfig(name=name, uid="u", namespace="n")
    base = Pod(id=PodId(new_id()), name=name, config=config, handler="", state=PodState.CREATING, created_ns=1)
    return msgspec.structs.replace(base, **fields)


def container(owner: Pod, name: str = "c", **fields: Any) -> Container:
    config = ContainerConfig(name=name, image=ImageSpec(image="i"))
    base = Container(
        id=ContainerId(new_id()),
        pod_id=owner.id,
        name=name,
        config=config,
        handler="",
        state=ContainerState.CREATING,
        created_ns=1,
    )
    return msgspec.structs.replace(base, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@contextlib.contextmanager
def opened(path: Path) -> Any:
    state = State(path)
    try:
        yield state
    finally:
        state.close()


def damage(path: Path, sql: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, values)
        connection.commit()


class Rows(RuleBasedStateMachine):
    """Random steps on the records, against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "state.db"
        self.state = State(self.path)
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, Container] = {}

    def teardown(self) -> None:
        self.state.close()
        self.directory.cleanup()

    @rule(name=st.sampled_from("abcd"), text=TEXTS)
    def insert_pod(self, name: str, text: str) -> None:
        made = pod(name, hostname=text)
        if name in {each.name for each in self.pods.values()}:
            with pytest.raises(Exists):
                self.state.pods.insert(made)
        else:
            self.pods[made.id] = self.state.pods.insert(made)

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), name=st.sampled_from("efgh"), text=TEXTS)
    def insert_container(self, data: st.DataObject, name: str, text: str) -> None:
        owner = data.draw(st.sampled_from(sorted(self.pods.values(), key=lambda each: each.name)))
        made = container(owner, name, message=text)
        if name in {each.name for each in self.containers.values()}:
            with pytest.raises(Exists):
                self.state.containers.insert(made)
        else:
            self.containers[made.id] = self.state.containers.insert(made)

    @precondition(lambda self: self.containers)
    @rule(data=st.data(), state=st.sampled_from(ContainerState), code=st.integers(0, 255), keep=st.booleans())
    def change(self, data: st.DataObject, state: ContainerState, code: int, *, keep: bool) -> None:
        old = data.draw(st.sampled_from(sorted(self.containers.values(), key=lambda each: each.name)))
        new = msgspec.structs.replace(old, state=state, exit_code=code)
        self.containers[old.id] = (self.state.containers.keep if keep else self.state.containers.put)(new)

    @precondition(lambda self: self.containers)
    @rule(data=st.data())
    def delete_container(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.containers.values(), key=lambda each: each.name)))
        self.state.containers.delete(gone.id)
        del self.containers[gone.id]

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def delete_pod(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.pods.values(), key=lambda each: each.name)))
        if any(each.pod_id == gone.id for each in self.containers.values()):
            with pytest.raises(WrongState):
                self.state.pods.delete(gone.id)
        else:
            self.state.pods.delete(gone.id)
            del self.pods[gone.id]

    @rule()
    def open_again(self) -> None:
        self.state.close()
        self.state = State(self.path)
        assert self.state.pods.broken == self.state.containers.broken == []

    @invariant()
    def memory_is_right(self) -> None:
        assert {each.id: each for each in self.state.pods} == self.pods
        assert {each.id: each for each in self.state.containers} == self.containers
        for each in self.containers.values():
            assert self.state.containers.by_name(each.name) == each
            assert self.state.containers.find_any(each.id[:20]) in (None, each)
            assert each in self.state.containers.of_pod(each.pod_id)
        assert len(self.state.pods) == len(self.pods)


Rows.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRows = Rows.TestCase


def test_an_id_can_be_begun_or_given_whole(path: Path) -> None:
    with opened(path) as state:
        one = state.pods.insert(pod("a", id=PodId("a" * 64), state=PodState.READY))
        two = state.pods.insert(pod("b", id=PodId("a" * 63 + "b"), state=PodState.NOTREADY))
        with pytest.raises(Invalid, match="more digits"):
            state.pods.find("a" * 10)
        assert state.pods.find("a" * 64) == one
        assert state.pods.find("a" * 63 + "b") == two
        assert one.id in state.pods
        assert "a" * 10 not in state.pods


@pytest.mark.parametrize(
    ("fields", "seen", "removable"),
    [
        ({"state": PodState.CREATING}, False, False),
        ({"state": PodState.CREATING, "trouble": "a full disk"}, False, False),
        ({"state": PodState.READY}, True, True),
        ({"state": PodState.NOTREADY}, True, True),
        ({"state": PodState.REMOVING}, False, True),
        ({"state": PodState.REMOVING, "trouble": "a full disk"}, True, True),
    ],
)
def test_clients_see_what_is_whole_and_what_could_not_be_removed(
    path: Path, fields: dict[str, Any], seen: bool, removable: bool
) -> None:
    with opened(path) as state:
        made = state.pods.insert(pod("a", **fields))
        assert state.pods.visible() == ([made] if seen else [])
        assert state.pods.find_any(made.id) == (made if seen else None)
        assert state.pods.find_any(made.id[:9], vanishing=True) == (made if removable else None)


def test_what_nobody_has_collected_is_seen_by_nobody(path: Path) -> None:
    with opened(path) as state:
        owner = state.pods.insert(pod("a", state=PodState.READY))
        made = state.containers.insert(container(owner, state=ContainerState.CREATED))
        state.containers.uncollected.add(made.id)
        assert state.containers.visible() == []
        with pytest.raises(NotFound):
            state.containers.find(made.id)
        assert state.containers.find_any(made.id, vanishing=True) is None
        state.containers.uncollected.clear()
        assert state.containers.find(made.id) == made


def test_what_is_not_seen_makes_no_beginning_ambiguous(path: Path) -> None:
    with opened(path) as state:
        one = state.pods.insert(pod("a", id=PodId("a" * 64), state=PodState.READY))
        state.pods.insert(pod("b", id=PodId("a" * 63 + "b")))
        assert state.pods.find("a") == one


def test_an_empty_id_means_nobody(path: Path) -> None:
    with opened(path) as state:
        for call in (state.pods.find, state.pods.find_any, state.containers.find):
            with pytest.raises(Invalid):
                call("")


@pytest.mark.parametrize("document", ["", "garbage", "{}", '{"id": 7}', "[" * 100_000, "null", b"\xff\x00"])
def test_a_row_that_cannot_be_read_is_broken_and_others_are_not(path: Path, document: str | bytes) -> None:
    with opened(path) as state:
        owner = state.pods.insert(pod())
        bad, good = (state.containers.insert(container(owner, name)) for name in ("bad", "good"))
    damage(path, "UPDATE container SET document = CAST(? AS TEXT) WHERE id = ?", document, bad.id)
    with opened(path) as state:
        assert state.containers.all() == [good]
        assert state.containers.broken == [(bad.id, owner.id)]
        state.containers.delete(bad.id)
    with opened(path) as state:
        assert state.containers.broken == []


def test_a_row_with_the_document_of_another_is_broken(path: Path) -> None:
    with opened(path) as state:
        one, two = state.pods.insert(pod("a")), state.pods.insert(pod("b"))
    damage(path, "UPDATE pod SET document = (SELECT document FROM pod WHERE id = ?) WHERE id = ?", one.id, two.id)
    with opened(path) as state:
        assert [row.id for row in state.pods.broken] == [two.id]


def test_what_has_happened_counts_while_the_database_takes_nothing(path: Path) -> None:
    with opened(path) as state:
        old = state.pods.insert(pod())
        new = msgspec.structs.replace(old, state=PodState.READY)
        state._database._connection.execute("PRAGMA query_only=1")
        with pytest.raises(HostFailed):
            state.pods.put(new)
        assert state.pods.get(old.id) == old
        state.pods.keep(new)
        assert state.pods.get(old.id) == new
        with pytest.raises(HostFailed):
            state.pods.save()
        state._database._connection.execute("PRAGMA query_only=0")
        state.pods.save()
    with opened(path) as state:
        assert state.pods.all() == [new]


def test_facts_are_kept(path: Path) -> None:
    with opened(path) as state:
        assert state.fact("boot_id") is None
        state.set_fact("boot_id", "one")
        state.set_fact("boot_id", "two")
    with opened(path) as state:
        assert state.fact("boot_id") == "two"


@pytest.mark.parametrize("content", [b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 5000, b"hello"])
def test_a_file_that_is_no_database_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"state\.db is damaged .* move the file away"):
        State(path)


def test_a_truncated_file_is_named(path: Path) -> None:
    with opened(path) as state:
        for number in range(50):
            state.pods.insert(pod(f"p{number}", hostname="x" * 1000))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(Damaged):
        State(path)


def test_a_newer_database_is_refused(path: Path) -> None:
    with opened(path):
        pass
    damage(path, "PRAGMA user_version=99")
    with pytest.raises(Unsupported, match="schema 99 is of a newer Criollo"):
        State(path)


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="cannot open"):
        State(tmp_path / "nowhere" / "state.db")


def test_the_file_is_only_for_us(path: Path) -> None:
    with opened(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    with opened(path) as state:
        db = state._database

        def cut() -> None:
            with db.transaction():
                db.execute("INSERT INTO fact VALUES ('a', 'b')")
                raise KeyError

        with pytest.raises(KeyError):
            cut()
        assert state.fact("a") is None
        with db.transaction():
            db.execute("INSERT INTO fact VALUES ('a', 'b')")
        assert state.fact("a") == "b"


def test_the_log_is_copied_while_the_database_is_open(path: Path) -> None:
    with opened(path) as state:
        state.set_fact("a", "a value of its own")
        assert b"a value of its own" not in path.read_bytes()
        database.checkpoint(path)
        assert b"a value of its own" in path.read_bytes()


def test_a_full_disk_is_told_as_such(path: Path) -> None:
    with opened(path) as state:
        pages = state._database.query("PRAGMA page_count")[0][0]
        state._database._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(Exhausted, match="the disk is full; free some space"):
            state.pods.insert(pod(hostname="x" * 100_000))
        assert state.pods.all() == []


def test_a_row_that_another_one_needs_stays(path: Path) -> None:
    with opened(path) as state:
        owner = state.pods.insert(pod())
        state.containers.insert(container(owner))
        with pytest.raises(WrongState, match="needed by a row of another kind"):
            state.pods.delete(owner.id)
        assert state.pods.get(owner.id) == owner


def test_text_that_cannot_be_written_costs_the_row_and_nobody_else(path: Path) -> None:
    with opened(path) as state:
        made = state.pods.insert(pod())
        state.pods.keep(msgspec.structs.replace(made, trouble="cannot remove \udcff"))
        with pytest.raises(Invalid, match="text that is UTF-8"):
            state.pods.save()
        assert state.pods.get(made.id) != made
