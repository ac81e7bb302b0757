"""images.preload with real workers: what a directory holds is here and pinned, what it cannot be is told once."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from support.image_store import image_store
from support.images import file, make_image, write_docker_archive, write_oci_layout

from criollo.images.context import Images
from criollo.images.preload import Preload
from criollo.images.status import is_pinned
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node


def run(root: Path, body: Callable[[Images, Preload], Coroutine[object, object, None]]) -> None:
    there = root / "preload"
    there.mkdir(exist_ok=True)

    async def inside(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            await body(images, Preload(images, there))

    with image_store(root, workers=Workers()) as images:
        asyncio.run(inside(images))


def pinned(images: Images) -> set[str]:
    return {name for image in images.rows.all() if is_pinned(images, image) for name in image.names}


def test_files_and_layouts_are_imported_and_pinned_until_they_go(tmp_path: Path) -> None:
    async def body(images: Images, preload: Preload) -> None:
        there = tmp_path / "preload"
        write_docker_archive(there / "first.tar", {"example.com/first:1": make_image([[file("first")]])})
        write_oci_layout(there / "second", {"example.com/second:1": make_image([[file("second")]])})
        await preload.look()
        assert pinned(images) == {"example.com/first:1", "example.com/second:1"}
        (there / "first.tar").unlink()
        await preload.look()
        assert pinned(images) == {"example.com/second:1"}
        assert len(images.rows.all()) == 2

    run(tmp_path, body)


def test_a_start_remembers_the_pins_and_imports_nothing_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def first(images: Images, preload: Preload) -> None:
        write_docker_archive(tmp_path / "preload/a.tar", {"example.com/a:1": make_image([[file("a")]])})
        await preload.look()

    async def second(images: Images, preload: Preload) -> None:
        await preload.recall()
        assert pinned(images) == {"example.com/a:1"}
        before = images.rows.all()[0].pulled_ns
        await preload.look()
        assert images.rows.all()[0].pulled_ns == before

    run(tmp_path, first)
    run(tmp_path, second)


def test_an_image_that_was_removed_by_hand_comes_back(tmp_path: Path) -> None:
    async def body(images: Images, preload: Preload) -> None:
        write_docker_archive(tmp_path / "preload/a.tar", {"example.com/a:1": make_image([[file("a")]])})
        await preload.look()
        images.rows.remove(images.rows.all()[0].id)
        await preload.look()
        assert pinned(images) == {"example.com/a:1"}

    run(tmp_path, body)


def test_unfinished_names_are_left_alone(tmp_path: Path) -> None:
    async def body(images: Images, preload: Preload) -> None:
        for name in (".hidden", "a.part", "a.tmp"):
            (tmp_path / "preload" / name).write_bytes(b"half")
        await preload.look()
        assert not images.rows.all()
        assert not preload._refused

    run(tmp_path, body)


def test_what_is_no_image_is_tried_again_when_it_changes(tmp_path: Path) -> None:
    async def body(images: Images, preload: Preload) -> None:
        path = tmp_path / "preload/a.tar"
        path.write_bytes(b"this is no archive" * 100)
        await preload.look()
        assert list(preload._refused) == ["a.tar"]
        write_docker_archive(path, {"example.com/a:1": make_image([[file("a")]])})
        await preload.look()
        assert pinned(images) == {"example.com/a:1"}
        assert not preload._refused

    run(tmp_path, body)


def test_a_directory_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    async def body(images: Images, preload: Preload) -> None:
        (tmp_path / "preload").rmdir()
        await preload.look()
        assert not images.rows.all()

    run(tmp_path, body)


def test_a_record_that_is_unreadable_costs_an_import_only(tmp_path: Path) -> None:
    (tmp_path / "preload.json").write_bytes(b"{broken")

    async def body(images: Images, preload: Preload) -> None:
        await preload.recall()
        write_docker_archive(tmp_path / "preload/a.tar", {"example.com/a:1": make_image([[file("a")]])})
        await preload.look()
        assert pinned(images) == {"example.com/a:1"}

    run(tmp_path, body)
