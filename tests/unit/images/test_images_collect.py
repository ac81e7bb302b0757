"""images.collect: no layer goes that somebody needs, none stays that nobody needs."""

import asyncio
import os
from pathlib import Path

import pytest
from support.image_store import add_image, run

from criollo.errors import Damaged, Exhausted, TimedOut, Unavailable
from criollo.images.collect import KEPT_S, assembling, collect_layers, leased, sweep_layers
from criollo.images.context import Finished, Images
from criollo.state.images import LayerRow

A, B, C = "a" * 32, "b" * 32, "c" * 32


def make(images: Images, *names: str) -> None:
    for name in names:
        (images.layers.directory / name).mkdir()


def finish(images: Images, name: str, *, ago_s: float) -> None:
    """A finished layer without an image."""
    make(images, name)
    row = LayerRow(name, "sha256:" + "0" * 64, 1, 1)
    images.finished[name] = Finished(row, asyncio.get_running_loop().time() - ago_s)


def there(images: Images) -> set[str]:
    return set(os.listdir(images.layers.directory)) - {"empty"}


def test_layers_of_an_image_that_is_gone_go(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        make(images, A, B, C)
        gone = add_image(images, "1" * 64, layers=[A, B])
        add_image(images, "2" * 64, layers=[A, C])
        assert await collect_layers(images) == []
        images.rows.remove(gone.id)
        assert await collect_layers(images) == [B]
        assert there(images) == {A, C}
        assert {row.name for row in images.rows.layers()} == {A, C}

    run(tmp_path, body)


def test_leased_layers_stay_until_the_last_lease_ends(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        make(images, A)
        images.rows.remove(add_image(images, "1" * 64, layers=[A]).id)
        with leased(images, [A]):
            with leased(images, [A]):
                assert await collect_layers(images) == []
            assert await collect_layers(images) == []
        assert images.leases == {}
        assert await collect_layers(images) == [A]

    run(tmp_path, body)


def test_finished_layers_wait_for_the_next_try(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        finish(images, A, ago_s=KEPT_S - 60)
        finish(images, B, ago_s=KEPT_S + 1)
        assert await collect_layers(images) == [B]
        assert there(images) == set(images.finished) == {A}

    run(tmp_path, body)


@pytest.mark.parametrize("error", [Unavailable("later"), TimedOut("later"), asyncio.CancelledError()])
def test_after_what_may_pass_finished_layers_stay(tmp_path: Path, error: BaseException) -> None:
    async def body(images: Images) -> None:
        finish(images, A, ago_s=0)
        with pytest.raises(type(error)):
            async with assembling(images, [A]):
                raise error
        assert there(images) == {A}
        assert images.leases == {}

    run(tmp_path, body)


@pytest.mark.parametrize("error", [Damaged("bad"), Exhausted("full")])
def test_after_what_cannot_succeed_only_needed_layers_stay(tmp_path: Path, error: Exception) -> None:
    async def body(images: Images) -> None:
        make(images, A)
        add_image(images, "1" * 64, layers=[A])
        finish(images, B, ago_s=0)
        finish(images, C, ago_s=0)
        with leased(images, [C]), pytest.raises(type(error)):
            async with assembling(images, [A, B, C]):
                raise error
        assert there(images) == {A, C}
        assert set(images.finished) == {C}

    run(tmp_path, body)


def test_a_layer_that_is_wanted_in_the_last_moment_stays(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        make(images, A)
        images.rows.remove(add_image(images, "1" * 64, layers=[A]).id)
        async with asyncio.TaskGroup() as group:
            async with images.layer_locks.hold(A):
                collecting = group.create_task(collect_layers(images))
                await asyncio.sleep(0)
                lease = leased(images, [A])
                lease.__enter__()
            assert await collecting == []
            lease.__exit__(None, None, None)
        assert there(images) == {A}

    run(tmp_path, body)


def test_a_start_forgets_images_that_lost_layers_and_layers_that_lost_their_rows(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        make(images, A, C)
        add_image(images, "1" * 64, names=["a.example/whole:1"], layers=[A])
        add_image(images, "2" * 64, names=["a.example/broken:1"], layers=[A, B])
        await sweep_layers(images)
        assert [image.names for image in images.rows.all()] == [("a.example/whole:1",)]
        assert there(images) == {A}
        assert {row.name for row in images.rows.layers()} == {A}

    run(tmp_path, body)
