"""images.foreign: images of stores among ours, looked at again when the stores change."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.containers_storage import HandmadeStore
from support.dead_mount import dead_mount
from support.image_store import add_image, image_store
from support.images import file, make_image

from criollo.aio.background import Background
from criollo.errors import Damaged, TimedOut, WrongState
from criollo.images.context import Images
from criollo.images.foreign import ForeignImages
from criollo.images.remove import remove_image
from criollo.images.resolve import find
from criollo.images.status import is_pinned, list_images, verbose
from criollo.storage import foreign_look
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

APP, LIB = (make_image([[file("f", text)], [file("g", text)]]) for text in ("app", "lib"))
NAME = "example.com/team/app:v1"


def run(tmp_path: Path, stores: list[Path], body: Callable[[Images], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        async with Workers() as workers:
            with image_store(tmp_path, workers=workers) as images:
                await within(images)

    async def within(images: Images) -> None:
        await images.layers.open()
        images.foreign = ForeignImages(stores, images.layers, images.workers)
        async with Background() as tasks:
            tasks.start(images.foreign.follow(), name="follow")
            await images.foreign.refresh()
            await body(images)

    asyncio.run(inside())


def store_with(root: Path, *images: tuple[Any, str]) -> HandmadeStore:
    store = HandmadeStore(root)
    for image, name in images:
        store.add(image, name)
    return store


def test_an_image_of_a_store_is_found_and_listed_and_pinned(tmp_path: Path) -> None:
    store = store_with(tmp_path / "store", (APP, NAME))
    store.images[0]["names"] += ["not a name!", "UPPER/x"]
    store.write()

    async def body(images: Images) -> None:
        for text in (NAME, APP.id, APP.id[:12], f"example.com/team/app@{APP.digest}"):
            image = find(images, text)
            assert image is not None
            assert (image.id, image.names, image.digests) == (APP.id, (NAME,), (f"example.com/team/app@{APP.digest}",))
            assert (image.store, is_pinned(images, image)) == (str(store.root), True)
        assert [each.id for each in list_images(images)] == [APP.id]
        assert [images.layers.path(name) for name in image.layers] == [store.diff(each["id"]) for each in store.layers]
        assert images.layers.names() == set()
        assert str(store.root) in verbose(images, image)["info"]

    run(tmp_path, [store.root], body)


def test_what_changes_in_a_store_is_seen_by_the_next_look(tmp_path: Path) -> None:
    store = store_with(tmp_path / "store", (APP, NAME))

    async def body(images: Images) -> None:
        store.add(LIB, "example.com/lib:v1")
        await images.foreign.refresh()
        assert {each.id for each in list_images(images)} == {APP.id, LIB.id}
        store.images = store.images[1:]
        store.write()
        await images.foreign.refresh()
        assert [each.id for each in list_images(images)] == [LIB.id]
        assert find(images, NAME) is None

    run(tmp_path, [store.root], body)


def test_half_written_records_leave_what_was_seen(tmp_path: Path) -> None:
    store = store_with(tmp_path / "store", (APP, NAME))

    async def body(images: Images) -> None:
        (store.root / "overlay-images/images.json").write_text('[{"id":')
        await images.foreign.refresh()
        assert find(images, NAME) is not None
        os.chmod(store.root, 0o777)
        await images.foreign.refresh()
        assert find(images, NAME) is None
        os.chmod(store.root, 0o700)
        store.write()
        await images.foreign.refresh()
        assert find(images, NAME) is not None

    run(tmp_path, [store.root], body)


def test_a_store_may_come_later_and_go(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        assert list_images(images) == []
        store = store_with(tmp_path / "store", (APP, NAME))
        await images.foreign.refresh()
        assert find(images, NAME) is not None
        store.root.rename(tmp_path / "gone")
        await images.foreign.refresh()
        assert list_images(images) == []

    run(tmp_path, [tmp_path / "store"], body)


def test_ours_comes_first_and_the_first_store_next(tmp_path: Path) -> None:
    first = store_with(tmp_path / "one", (APP, NAME), (LIB, "example.com/lib:v1"))
    second = store_with(tmp_path / "two", (LIB, NAME), (APP, "example.com/more:v1"))

    async def body(images: Images) -> None:
        found = find(images, NAME)
        assert found is not None
        assert (found.id, found.store) == (APP.id, str(first.root))
        assert {each.id: each.names for each in list_images(images)} == {APP.id: (NAME,), LIB.id: ("example.com/lib:v1",)}
        own = add_image(images, "c" * 64, names=[NAME])
        assert find(images, NAME) == own
        listed = {each.id: each.names for each in list_images(images)}
        assert listed == {own.id: (NAME,), APP.id: (), LIB.id: ("example.com/lib:v1",)}
        mine = add_image(images, LIB.id, names=["example.com/mine:v1"])
        assert find(images, LIB.id) == mine
        listed = {each.id: each.names for each in list_images(images)}
        assert listed[mine.id] == ("example.com/mine:v1", "example.com/lib:v1")

    run(tmp_path, [first.root, second.root], body)


def test_an_image_of_a_store_is_not_ours_to_remove(tmp_path: Path) -> None:
    store = store_with(tmp_path / "store", (APP, NAME))

    async def body(images: Images) -> None:
        for text in (NAME, APP.id):
            with pytest.raises(WrongState, match=f"in the store {store.root}, which is only read here"):
                await remove_image(images, text)
        image = find(images, NAME)
        assert image is not None
        for layer in image.layers:
            await images.layers.remove(layer)
        assert all(store.diff(each["id"]).is_dir() for each in store.layers)

    run(tmp_path, [store.root], body)


def test_a_layer_that_vanished_is_told_with_what_to_do(tmp_path: Path) -> None:
    store = store_with(tmp_path / "store", (APP, NAME))

    async def body(images: Images) -> None:
        image = find(images, NAME)
        assert image is not None
        await images.foreign.check(image, add_image(images, "c" * 64))
        store.diff(store.layers[0]["id"]).rename(tmp_path / "away")
        with pytest.raises(Damaged, match=r"in the store .* of another tool, and its layer .* pull the image"):
            await images.foreign.check(image)

    run(tmp_path, [store.root], body)


def test_a_store_that_stays_wrong_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_with(tmp_path / "store", (APP, NAME))
    store.layers[0]["flags"] = {"incomplete": True}
    store.write()

    async def body(images: Images) -> None:
        store.write()
        await images.foreign.refresh()

    with caplog.at_level("WARNING"):
        run(tmp_path, [store.root, tmp_path / "none"], body)
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["image", "image"]


def test_a_store_that_hangs_keeps_its_images_and_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_look, "STAMP_S", 0.5)
    monkeypatch.setattr(foreign_look, "CHECK_S", 1.0)
    hung, good = store_with(tmp_path / "hung", (APP, NAME)), store_with(tmp_path / "good")

    async def body(images: Images) -> None:
        image = find(images, NAME)
        assert image is not None
        with dead_mount(hung.root):
            for _ in range(3):
                good.add(LIB, "example.com/lib:v1") if not good.images else None
                await images.foreign.refresh()
                assert {each.id for each in list_images(images)} == {APP.id, LIB.id}
            with pytest.raises(TimedOut, match=f"the store {hung.root} of another tool, where its layers are, does not answer"):
                await images.foreign.check(image)
        await until(lambda: "image store answers again" in caplog.text, images)
        await images.foreign.check(image)
        assert caplog.text.count("image store hangs") == 1

    with caplog.at_level("INFO"):
        run(tmp_path, [hung.root, good.root], body)


async def until(condition: Callable[[], bool], images: Images) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await images.foreign.refresh()
            await asyncio.sleep(0.01)
