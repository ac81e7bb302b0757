"""state.ballast and what a database does with it: on a full disk, the room that was held back is used."""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from criollo.errors import Exhausted
from criollo.state import ballast
from criollo.state.ballast import BYTES, Ballast
from criollo.state.database import Database


class FullDisk:
    """A database whose file may not grow, until `make_room` is asked."""

    def __init__(self, path: Path, *, has_room: bool) -> None:
        self.has_room, self.asked = has_room, 0
        self.database = Database(path, "images.sql", make_room=self.make_room)
        self.limit(self.database.query("PRAGMA page_count")[0][0])

    def limit(self, pages: int) -> None:
        self.database.query(f"PRAGMA max_page_count={pages}")

    def make_room(self) -> bool:
        self.asked += 1
        if self.has_room:
            self.limit(100_000)
        return self.has_room

    def layers(self) -> list[str]:
        return [name for (name,) in self.database.query("SELECT name FROM layer ORDER BY name")]

    def add(self, name: str, size: int = 10_000) -> None:
        self.database.execute("INSERT INTO layer VALUES (?, ?, 1, 1)", name, "x" * size)

    def add_together(self, *names: str) -> None:
        with self.database.transaction():
            for number, name in enumerate(names):
                self.add(name, 1 + number * (1 << 20))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "images.db"


def test_what_failed_is_written_once_more(path: Path) -> None:
    full = FullDisk(path, has_room=True)
    full.add("a")
    assert (full.layers(), full.asked) == (["a"], 1)


def test_a_transaction_is_whole_after_it_was_undone(path: Path) -> None:
    full = FullDisk(path, has_room=True)
    with full.database.transaction():
        full.add("small", 1)
        full.add("large", 1 << 20)
        full.add("next", 1 << 20)
    assert (full.layers(), full.asked) == (["large", "next", "small"], 1)
    full.database.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM layer").fetchone() == (3,)


def test_without_room_nothing_is_written_and_it_is_told(path: Path) -> None:
    full = FullDisk(path, has_room=False)
    with pytest.raises(Exhausted, match="the disk is full"):
        full.add_together("small", "large")
    assert full.layers() == []
    full.limit(100_000)
    with full.database.transaction():
        full.add("later")
    assert full.layers() == ["later"]


def test_what_can_wait_leaves_the_room_to_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=1, f_frsize=4096))
    full = FullDisk(path, has_room=True)
    with pytest.raises(Exhausted, match="the disk is full"), full.database.transaction(can_wait=True):
        full.add("later")
    assert full.asked == 0
    full.add("now")
    assert (full.layers(), full.asked) == (["now"], 1)


def test_room_that_the_kernel_counts_and_does_not_give_yet_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullDisk(path, has_room=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: full.limit(100_000))
    full.add_together("small", "large")
    assert full.layers() == ["large", "small"]


def test_a_disk_that_has_no_room_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullDisk(path, has_room=False)
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=1, f_frsize=4096))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(Exhausted, match="the disk is full"):
        full.add("a")


def test_the_room_is_held_given_up_once_and_held_again(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast")
    assert not ballast.release()
    for _ in range(2):
        assert ballast.hold() is None
        assert os.stat(tmp_path / "ballast").st_blocks * 512 >= BYTES
    assert ballast.release()
    assert not ballast.release()
    assert ballast.hold() is None


def test_where_there_is_no_room_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    error = Ballast(tmp_path / "ballast").hold()
    assert error is not None
    assert error.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_disk_that_stays_full_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def hold(self: Ballast) -> OSError | None:
        looks.append(1)
        return OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ballast, "hold", hold)
    monkeypatch.setattr(ballast, "_EVERY_S", 0)

    async def main() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            keeper = group.create_task(Ballast(tmp_path / "ballast").keep())
            while len(looks) < 5:
                await asyncio.sleep(0.001)
            keeper.cancel()

    asyncio.run(main())
    assert [each.message for each in caplog.records] == ["no room held back for the databases"]


def test_the_last_room_is_not_taken_even_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who allocates what there is not has all of it until he is refused: a row that is written meanwhile would find none."""
    taken: list[int] = []
    room = os.statvfs(tmp_path)
    blocks = {"less": (2 * BYTES - 1) // room.f_frsize, "enough": -(-2 * BYTES // room.f_frsize)}
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, start, size: taken.append(size))
    held = Ballast(tmp_path / "ballast")
    for there, expected in (("less", errno.ENOSPC), ("enough", None)):
        values = SimpleNamespace(f_bavail=blocks[there], f_frsize=room.f_frsize)
        monkeypatch.setattr(os, "statvfs", lambda path, values=values: values)
        error = held.hold()
        assert (error and error.errno) == expected
    assert taken == [BYTES]
