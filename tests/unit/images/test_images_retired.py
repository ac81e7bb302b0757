"""images.retired: an old tree stays while a container of its time is there, and no longer."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from support.image_store import image_store

from criollo.errors import CriolloError
from criollo.images import retired as module
from criollo.images.collect import collect_layers
from criollo.images.context import Images
from criollo.images.retired import exchange, release

LAYER = "a" * 32
OLD, NEW, LATER = "1" * 64, "2" * 64, "3" * 64


class Roots:
    """The root filesystems that there are."""

    def __init__(self, *ids: str) -> None:
        self.now = set(ids)

    def ids(self) -> set[str]:
        return set(self.now)


def run(root: Path, roots: Roots, body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    async def inside(images: Images) -> None:
        await images.layers.open()
        await body(images)

    with image_store(root) as images:
        images.roots = cast(Any, roots)
        asyncio.run(inside(images))


async def replace(images: Images, content: str = "new") -> None:
    staging = await images.layers.stage()
    (staging.path / "file").write_text(content)
    exchange(images, staging, LAYER)
    await images.layers.discard(staging)


def retired(root: Path) -> list[str]:
    return os.listdir(root / "retired")


def test_the_new_tree_is_in_place_and_the_old_one_is_kept(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        path = images.layers.path(LAYER)
        path.mkdir()
        (path / "file").write_text("old")
        held = os.open(path, os.O_RDONLY)  # as a mount holds it
        await replace(images)
        assert (path / "file").read_text() == "new"
        assert os.read(os.open("file", os.O_RDONLY, dir_fd=held), 9) == b"old"
        release(images)
        assert len(retired(tmp_path)) == 1

    run(tmp_path, Roots(OLD), body)


def test_it_goes_when_the_last_container_of_its_time_is_gone(tmp_path: Path) -> None:
    roots = Roots(OLD, NEW)

    async def body(images: Images) -> None:
        images.layers.path(LAYER).mkdir()
        await replace(images)
        for now in ({OLD, LATER}, {NEW}):
            roots.now = now
            release(images)
            assert len(retired(tmp_path)) == 1
        roots.now = {LATER}
        release(images)
        assert retired(tmp_path) == []
        assert len(os.listdir(tmp_path / "trash")) >= 1

    run(tmp_path, roots, body)


def test_without_a_list_of_users_all_that_are_there_count(tmp_path: Path) -> None:
    roots = Roots(OLD)

    async def body(images: Images) -> None:
        images.layers.path(LAYER).mkdir()
        await replace(images)
        (tmp_path / "retired" / retired(tmp_path)[0] / "users").unlink()
        release(images)
        roots.now.add(LATER)
        release(images)
        roots.now = {LATER}
        release(images)
        assert retired(tmp_path) == []

    run(tmp_path, roots, body)


def test_a_layer_that_is_missing_gets_its_tree(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        await replace(images)
        assert (images.layers.path(LAYER) / "file").read_text() == "new"
        release(images)
        assert retired(tmp_path) == []

    run(tmp_path, Roots(), body)


def test_a_staged_tree_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        images.layers.path(LAYER).mkdir()
        staging = await images.layers.stage()
        staging.path.rmdir()
        with pytest.raises(CriolloError, match="replace layer"):
            exchange(images, staging, LAYER)
        assert images.layers.has(LAYER)
        await images.layers.discard(staging)

    run(tmp_path, Roots(), body)


def test_what_is_in_the_middle_of_an_exchange_is_not_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = module.libc.rename_exchange

    async def body(images: Images) -> None:
        path = images.layers.path(LAYER)
        path.mkdir()
        (path / "file").write_text("old")
        beside = threading.Thread(target=release, args=(images,))

        def rename_while_another_releases(old: str, new: str) -> None:
            beside.start()
            beside.join(0.5)  # it waits for us
            rename(old, new)

        monkeypatch.setattr(module.libc, "rename_exchange", rename_while_another_releases)
        await replace(images)
        beside.join()
        assert (path / "file").read_text() == "new"

    run(tmp_path, Roots(), body)


def test_the_trash_hears_of_old_trees_from_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        images.layers.path(LAYER).mkdir()
        await replace(images)
        by: list[threading.Thread] = []
        monkeypatch.setattr(images.layers.trash, "wake", lambda: by.append(threading.current_thread()))
        await collect_layers(images)
        assert set(by) == {threading.current_thread()}  # an event of the loop is not another thread's to set

    run(tmp_path, Roots(), body)
