"""state.signatures: what is kept, for how long, and that databases from before get the table."""

import sqlite3
from pathlib import Path

import pytest
from support.image_store import add_image, image_store

from criollo.state.images import ImageRows
from criollo.state.signatures import MAX_BLOBS, MAX_MANIFESTS

ID, OTHER = "a" * 64, "b" * 64
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_signatures_survive_a_restart_and_go_with_their_image(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        kept = images.rows.signatures
        kept.keep(ID, ONE, [b"x", b"y"], now_ns=1)
        kept.keep(ID, TWO, [b"z"], now_ns=2)
        add_image(images, ID)
        mark = kept.fingerprints(ID)
    with image_store(tmp_path) as images:
        kept = images.rows.signatures
        assert kept.fingerprints(ID) == mark
        found = dict(kept.of(ID))
        assert (set(found[ONE]), found[TWO]) == ({b"x", b"y"}, (b"z",))
        image = images.rows.get(ID)
        assert image is not None
        images.rows.remove(image.id)
        assert (kept.of(ID), kept.fingerprints(ID)) == ([], ())
    with image_store(tmp_path) as images:
        assert images.rows.signatures.of(ID) == []


def test_signatures_without_their_image_are_forgotten_at_the_next_start(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        images.rows.signatures.keep(OTHER, ONE, [b"x"], now_ns=1)
    with image_store(tmp_path) as images:
        assert images.rows.signatures.of(OTHER) == []


def test_the_same_again_changes_nothing_and_more_adds(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        kept = images.rows.signatures
        kept.keep(ID, ONE, [b"x"], now_ns=1)
        mark = kept.fingerprints(ID)
        kept.keep(ID, ONE, [b"x"], now_ns=2)
        kept.keep(ID, ONE, [], now_ns=3)
        assert kept.fingerprints(ID) == mark
        kept.keep(ID, ONE, [b"y"], now_ns=4)
        assert kept.fingerprints(ID) != mark
        assert set(dict(kept.of(ID))[ONE]) == {b"x", b"y"}


def test_there_are_bounds(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        kept = images.rows.signatures
        kept.keep(ID, ONE, [str(at).encode() for at in range(MAX_BLOBS)], now_ns=1)
        kept.keep(ID, ONE, [b"new"], now_ns=2)
        assert dict(kept.of(ID))[ONE] == (b"new",)
        for at in range(MAX_MANIFESTS):
            kept.keep(ID, f"sha256:{at:064}", [b"x"], now_ns=3 + at)
        found = [digest for digest, _ in kept.of(ID)]
        assert len(found) == MAX_MANIFESTS
        assert ONE not in found
        assert found[0] == f"sha256:{MAX_MANIFESTS - 1:064}"  # the newest first


def test_a_database_from_before_gets_the_table(tmp_path: Path) -> None:
    ImageRows(tmp_path / "images.db").close()
    with sqlite3.connect(tmp_path / "images.db") as connection:
        connection.execute("DROP TABLE signature")
    connection.close()
    rows = ImageRows(tmp_path / "images.db")
    rows.signatures.keep(ID, ONE, [b"x"], now_ns=1)
    assert rows.signatures.of(ID) == [(ONE, (b"x",))]
    rows.close()


def test_an_unknown_image_has_none(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        assert images.rows.signatures.of("nobody") == []
        assert images.rows.signatures.fingerprints("nobody") == ()
        with pytest.raises(TypeError):
            images.rows.signatures.keep(ID, ONE, [b"x"])  # type: ignore[call-arg]
