"""storage.foreign_look: the same store seen from near and as if it were far away; looks at one that hangs come to an end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from support.containers_storage import HandmadeStore
from support.dead_mount import dead_mount
from support.images import file, make_image

from criollo.aio import threads
from criollo.errors import CriolloError, HostFailed, TimedOut, Unsupported
from criollo.linux.near import is_near
from criollo.storage import foreign, foreign_look
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

T = TypeVar("T")
IMAGE = make_image([[file("f", "a")], [file("g", "b")]])
ways = pytest.mark.parametrize("near", [True, False], ids=["near", "far"])


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = getattr(request.node, "callspec", None)
    if spec is not None and spec.params.get("near") is False:
        monkeypatch.setattr(foreign_look, "is_near", lambda path: False)


def run(body: Callable[[Workers], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with workers() as pool:
            return await body(pool)

    try:
        return asyncio.run(inside())
    finally:
        threads.close()


@contextlib.asynccontextmanager
async def workers() -> AsyncIterator[Workers]:
    async with Workers() as pool:
        yield pool


def store_at(root: Path) -> HandmadeStore:
    store = HandmadeStore(root)
    store.add(IMAGE, "example.com/app:v1")
    return store


@ways
def test_the_place_is_free_of_links_and_its_stamp_the_same_from_near_and_far(tmp_path: Path, near: bool) -> None:
    store = store_at(tmp_path / "store")
    (tmp_path / "link").symlink_to("store")
    found = run(lambda pool: foreign_look.locate(pool, tmp_path / "link"))
    assert found == foreign_look.StorePlace(store.root, foreign.stamp(store.root))


@ways
def test_an_absent_store_has_a_place(tmp_path: Path, near: bool) -> None:
    found = run(lambda pool: foreign_look.locate(pool, tmp_path / "none"))
    assert found == foreign_look.StorePlace(tmp_path / "none", foreign.stamp(tmp_path / "none"))


@ways
def test_images_are_read_and_known_ones_not_again(tmp_path: Path, near: bool) -> None:
    store = store_at(tmp_path / "store")
    here = foreign.read_store(store.root, {})
    assert run(lambda pool: foreign_look.read_store(store.root, {})) == here
    for path in (store.root / "overlay-images" / IMAGE.id).iterdir():
        path.unlink()
    (image,) = here.images
    assert run(lambda pool: foreign_look.read_store(store.root, {image.record: image})) == here
    ((refused, error),) = run(lambda pool: foreign_look.read_store(store.root, {})).refused
    assert (refused, "manifest is missing" in str(error)) == (IMAGE.id, True)


@ways
def test_layers_are_looked_for(tmp_path: Path, near: bool) -> None:
    store = store_at(tmp_path / "store")
    names = [each["id"] for each in store.layers]
    run(lambda pool: foreign_look.check_trees(store.root, names))
    store.diff(names[1]).rmdir()
    with pytest.raises(CriolloError, match=f"its layer {names[1]} has no directory diff"):
        run(lambda pool: foreign_look.check_trees(store.root, names))


def test_what_the_far_reader_cannot_use_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_look, "is_near", lambda path: False)
    store = store_at(tmp_path / "store")
    (store.root / foreign.IMAGES).write_text("[{")
    with pytest.raises(HostFailed, match=r"images\.json"):
        run(lambda pool: foreign_look.read_store(store.root, {}))
    store.root.chmod(0o777)
    with pytest.raises(Unsupported, match="must be root's"):
        run(lambda pool: foreign_look.read_store(store.root, {}))


@pytest.mark.parametrize("place", ["", "overlay-images", "overlay"])
def test_a_store_that_hangs_is_named_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(foreign_look, "STAMP_S", 0.5)
    monkeypatch.setattr(foreign_look, "READ_S", 1.0)
    monkeypatch.setattr(foreign_look, "CHECK_S", 1.0)
    store = store_at(tmp_path / "store")
    layers = [each["id"] for each in store.layers]

    async def body(pool: Workers) -> None:
        if place != "overlay":  # where the stamp does not look
            with pytest.raises(TimedOut, match=f"image store {store.root} does not answer"):
                await foreign_look.locate(pool, store.root)
        with pytest.raises(TimedOut, match=f"read image store {store.root}"):
            await foreign_look.read_store(store.root, {})
        with pytest.raises(TimedOut, match=f"layers of image store {store.root}"):
            await foreign_look.check_trees(store.root, layers)

    with dead_mount(store.root / place):
        assert not is_near(str(store.root / place))
        run(body)
