"""state.database: files that are damaged in every way we know are named with what to do, or are read as they were."""

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import leaks

from criollo.errors import Damaged, Unsupported
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.state.database import checkpoint
from criollo.state.images import ImageRows, LayerRow
from criollo.state.integrity import findings
from criollo.state.records import State

PAGE = 4096
Opener = Callable[[Path], object]


def open_images(path: Path) -> list[Image]:
    """All that a start reads, and a write."""
    rows = ImageRows(path)
    try:
        rows.add_layer(LayerRow("f" * 32, str(Digest.of(b"")), 1, 1))
        rows.drop_layers(["f" * 32])
        for image in rows.all():
            rows.signatures.of(image.id)
            msgspec.json.encode([image.names, image.digests, image.id])
        return rows.all()
    finally:
        rows.close()


def open_state(path: Path) -> list[object]:
    state = State(path)
    try:
        state.set_fact("boot_id", "another")
        return [*state.pods.all(), *state.containers.all()]
    finally:
        state.close()


OPENERS: list[tuple[str, Opener]] = [("images.db", open_images), ("state.db", open_state)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "images.db"
    rows = ImageRows(path)
    for number in range(20):
        name, image_id = f"{number:032x}", ImageId(f"{number:064x}")
        digest = str(Digest.of(image_id.encode()))
        rows.add_layer(LayerRow(name, digest, 10, 2, "boot"))
        rows.signatures.keep(image_id, digest, [b"signature" * 30], now_ns=1)
        rows.add(
            Image(
                id=image_id, names=(f"example.com/{number}:v1",), digests=(), manifest_digest=digest, manifest=b"{}" * 99,
                config=b"{}" * 300, layers=(name,), size_bytes=0, pulled_ns=1,
            )
        )  # fmt: skip
    rows.close()
    return path.read_bytes()


def damaged(path: Path, opener: Opener) -> str:
    before = leaks.descriptors()
    with pytest.raises(Damaged, match="move the file away") as told:
        opener(path)
    assert leaks.opened(before) == []
    assert str(path) in str(told.value)
    assert "crio check" in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(("name", "opener"), OPENERS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda raw: raw[:50],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-PAGE],
        lambda raw: bytes(len(raw)),
        lambda raw: raw[:PAGE] + bytes(len(raw) - PAGE),
        lambda raw: bytes(100) + raw[100:],
        lambda raw: b"\x07" * 100 + raw[100:],
        lambda raw: raw[:18] + b"\xff" + raw[19:],  # "of a later SQLite: do not write"
        lambda raw: raw[:44] + b"\0\0\0\x09" + raw[48:],  # a schema format that nobody knows
        lambda raw: raw[:60] + b"\xff\xff\xff\xff" + raw[64:],  # our version: -1
        lambda raw: raw[:60] + bytes(4) + raw[64:],  # none, though there are tables
    ],
)
def test_damage_is_named_with_what_to_do(tmp_path: Path, name: str, opener: Opener, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    opener(path)
    path.write_bytes(damage(path.read_bytes()))
    damaged(path, opener)


@pytest.mark.parametrize(("name", "opener"), OPENERS)
def test_a_database_of_a_newer_version_is_no_damage(tmp_path: Path, name: str, opener: Opener) -> None:
    path = tmp_path / name
    opener(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=2")
    with pytest.raises(Unsupported, match="of a newer Criollo"):
        opener(path)
    assert findings(path) == []


def test_one_database_in_the_place_of_the_other_is_damage(tmp_path: Path) -> None:
    open_state(tmp_path / "state.db")
    (tmp_path / "state.db").rename(tmp_path / "images.db")
    assert "table image" in damaged(tmp_path / "images.db", open_images)
    open_images(tmp_path / "other.db")
    assert "table" in damaged(tmp_path / "other.db", open_state)


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE layer RENAME COLUMN inodes TO x", "DROP TABLE reference", "ALTER TABLE image DROP COLUMN pinned"],
)
def test_other_tables_than_ours_are_damage(tmp_path: Path, change: str) -> None:
    path = tmp_path / "images.db"
    open_images(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    damaged(path, open_images)


def test_a_table_beside_ours_is_none(tmp_path: Path) -> None:
    path = tmp_path / "images.db"
    open_images(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE further (a TEXT)")
    open_images(path)


def test_a_log_beside_an_emptied_file_is_damage(tmp_path: Path) -> None:
    """SQLite itself takes that for a new database."""
    path = tmp_path / "images.db"
    rows = ImageRows(path)
    rows.add_layer(LayerRow("f" * 32, str(Digest.of(b"")), 1, 1))
    log = Path(f"{path}-wal").read_bytes()
    rows.close()
    assert log
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(log)
    assert "it is empty" in damaged(path, open_images)
    assert Path(f"{path}-wal").read_bytes() == log
    path.unlink()  # as the message says
    assert open_images(path) == []


@pytest.mark.parametrize(("name", "opener"), OPENERS)
def test_an_emptied_file_is_left_as_it_is_and_one_that_was_moved_away_is_made_anew(
    tmp_path: Path, name: str, opener: Opener
) -> None:
    path = tmp_path / name
    opener(path)
    path.write_bytes(b"")
    assert "it is empty" in damaged(path, opener)
    assert path.read_bytes() == b""
    assert findings(path) == [f"{path}: it is empty"]
    path.rename(tmp_path / "away")
    assert opener(path) == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["away", name])


@pytest.mark.parametrize(("name", "opener"), OPENERS)
def test_a_new_database_has_its_name_when_it_is_whole(
    tmp_path: Path, name: str, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, a daemon leaves none, not one that the next start takes for emptied."""

    def killed(path: Path, target: Path) -> Path:
        assert findings(path) == []
        assert path.stat().st_size
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        opener(tmp_path / name)
    monkeypatch.undo()
    assert not (tmp_path / name).exists()
    (tmp_path / f"{name}.new").write_bytes(b"half of one")
    assert opener(tmp_path / name) == []
    assert not (tmp_path / f"{name}.new").exists()


@pytest.mark.parametrize("content", [None, b"", b"\x07" * 5000])
def test_a_log_that_is_lost_or_garbage_costs_what_was_in_it_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.db"
    first, second = (LayerRow(digit * 32, str(Digest.of(b"")), 1, 1) for digit in "12")
    rows = ImageRows(path)
    rows.add_layer(first)
    rows.close()  # copies it
    rows = ImageRows(path)
    rows.add_layer(second)
    image = path.read_bytes()  # without what only the log has
    rows.close()
    path.write_bytes(image)
    if content is not None:
        Path(f"{path}-wal").write_bytes(content)
    rows = ImageRows(path)
    assert rows.layers() == [first]
    rows.add_layer(second)
    rows.close()
    rows = ImageRows(path)
    assert rows.layers() == [first, second]
    rows.close()


def test_a_name_that_is_none_is_damage(tmp_path: Path, images: bytes) -> None:
    """What quick_check does not see, and what clients cannot be told."""
    path = tmp_path / "images.db"
    path.write_bytes(images.replace(b"example.com/7:v1", b"exam\xb0le.com/7:v1"))
    assert "example" not in damaged(path, open_images)
    path.write_bytes(images.replace(f"{7:032x}".encode(), f"{7:031x}/".encode()))
    damaged(path, open_images)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["bits", "page", "bytes", "cut", "header", "swapped"]))
@settings(max_examples=150, deadline=None)
def test_any_damage_is_told_or_harmless(tmp_path_factory: pytest.TempPathFactory, images: bytes, seed: int, kind: str) -> None:
    path = tmp_path_factory.mktemp("damaged") / "images.db"
    path.write_bytes(_spoil(images, random.Random(seed), kind))
    before = leaks.descriptors()
    with contextlib.suppress(Damaged, Unsupported):
        open_images(path)
    assert leaks.opened(before) == []
    findings(path)


def _spoil(raw: bytes, chance: random.Random, kind: str) -> bytes:
    spoilt, pages = bytearray(raw), len(raw) // PAGE
    if kind == "bits":
        for _ in range(chance.randint(1, 20)):
            spoilt[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    elif kind == "page":
        at = chance.randrange(pages) * PAGE
        spoilt[at : at + PAGE] = bytes(PAGE)
    elif kind == "bytes":
        at = chance.randrange(len(raw))
        spoilt[at : at + 5000] = chance.randbytes(len(spoilt[at : at + 5000]))
    elif kind == "cut":
        del spoilt[chance.randrange(1, len(raw)) :]
    elif kind == "header":
        for _ in range(chance.randint(1, 4)):
            spoilt[chance.randrange(100)] = chance.randrange(256)
    else:
        one, other = (chance.randrange(pages) * PAGE for _ in range(2))
        spoilt[one : one + PAGE], spoilt[other : other + PAGE] = raw[other : other + PAGE], raw[one : one + PAGE]
    return bytes(spoilt)


def test_a_checkpoint_leaves_open_what_was_open_before(tmp_path: Path) -> None:
    """SQLite keeps a descriptor of each second connection's: the first sweep would look like a leak of whoever works then."""
    with contextlib.closing(State(tmp_path / "state.db")) as state:
        before = leaks.descriptors()
        for number in range(3):
            state.set_fact("number", str(number))
            checkpoint(tmp_path / "state.db")
        assert leaks.new_descriptors(before) == []
