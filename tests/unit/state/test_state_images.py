"""Rows of images and layers: visible by one transaction, names move, layers stay until they are dropped."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.state.images import ImageRows, LayerRow

A, B = ImageId("a" * 64), ImageId("b" * 64)
L1, L2, L3 = ("1" * 32, "2" * 32, "3" * 32)


def image(image_id: ImageId, *names: str, layers: tuple[str, ...] = (L1,), **fields: Any) -> Image:
    base = Image(
        id=image_id, names=tuple(sorted(names)), digests=(f"x@sha256:{image_id}",), manifest_digest=f"sha256:{image_id}",
        manifest=b"{}", config=b"{}", layers=layers, size_bytes=7, pulled_ns=1,
    )  # fmt: skip
    return msgspec.structs.replace(base, **fields)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageRows]:
    rows = ImageRows(path)
    try:
        yield rows
    finally:
        rows.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with opened(tmp_path / "images.db") as rows:
        for name in (L1, L2, L3):
            rows.add_layer(LayerRow(name, f"sha256:{name}", 1, 1))
    return tmp_path / "images.db"


def test_an_image_is_there_after_opening_again(path: Path) -> None:
    added = image(A, "x:1", "x:2", layers=(L2, L1), annotations={"a": "b"}, pinned=True)
    with opened(path) as rows:
        assert rows.add(added) == added
    with opened(path) as rows:
        assert rows.all() == [added]
        assert rows.by_reference("x:2") == rows.get(A) == rows.by_prefix("aaa")[0] == added


def test_a_name_moves_to_the_newer_image(path: Path) -> None:
    with opened(path) as rows:
        rows.add(image(A, "x:1", "x:2"))
        rows.add(image(B, "x:1"))
        assert rows.by_reference("x:1") == image(B, "x:1")
        assert rows.get(A) == image(A, "x:2")


def test_adding_again_adds_names(path: Path) -> None:
    with opened(path) as rows:
        rows.add(image(A, "x:1"))
        assert rows.add(image(A, "x:2")).names == ("x:1", "x:2")


def test_untagging_leaves_the_image(path: Path) -> None:
    with opened(path) as rows:
        rows.add(image(A, "x:1"))
        rows.untag(["x:1", "unknown"])
        assert rows.get(A) == image(A)
        assert rows.by_reference("x:1") is None


def test_an_image_without_all_its_layers_is_not_added(path: Path) -> None:
    with opened(path) as rows:
        with pytest.raises(sqlite3.IntegrityError):
            rows.add(image(A, "x:1", layers=(L1, "missing")))
        assert rows.all() == []
    with opened(path) as rows:
        assert rows.all() == []


def test_layers_of_no_image_are_free_to_go(path: Path) -> None:
    with opened(path) as rows:
        rows.add(image(A, "x:1", layers=(L1, L2)))
        assert rows.unreferenced_layers() == [L3]
        rows.remove(A)
        assert sorted(rows.unreferenced_layers()) == [L1, L2, L3]
        rows.drop_layers([L1, L3])
        assert [row.name for row in rows.layers()] == [L2]
        assert rows.by_reference("x:1") is None
    with opened(path) as rows:
        assert [row.name for row in rows.layers()] == [L2]


@pytest.mark.parametrize("text", ["garbage", "[]", '{"a": 1}'])
def test_unreadable_annotations_cost_the_image_nothing_else(path: Path, text: str) -> None:
    with opened(path) as rows:
        rows.add(image(A, "x:1", annotations={"a": "b"}))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE image SET annotations = ?", (text,))
        connection.commit()
    with opened(path) as rows:
        assert rows.all() == [image(A, "x:1")]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "untag", "remove"]),
        st.sampled_from([A, B]),
        st.lists(st.sampled_from(["x:1", "x:2", "x:3"]), max_size=3, unique=True),
    ),
    max_size=12,
)


@given(steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_memory_says_what_the_rows_say(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    path = tmp_path_factory.mktemp("images") / "images.db"
    with opened(path) as rows:
        rows.add_layer(LayerRow(L1, "d", 1, 1))
        for what, image_id, names in steps:
            if what == "add":
                rows.add(image(image_id, *names))
            elif what == "untag":
                rows.untag(names)
            else:
                rows.remove(image_id)
        seen = {each.id: each for each in rows.all()}
        named = {name: rows.by_reference(name) for name in ("x:1", "x:2", "x:3")}
    with opened(path) as rows:
        assert {each.id: each for each in rows.all()} == seen
        assert {name: rows.by_reference(name) for name in named} == named
