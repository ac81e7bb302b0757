"""images.seals: a seal lives and goes with its layer."""

import asyncio
import os
from pathlib import Path

from support.image_store import add_image, image_store

from criollo.images import seals
from criollo.images.collect import collect_layers, sweep_layers
from criollo.images.context import Images
from criollo.images.scrub import Plan, Scrub

A, B = "a" * 32, "b" * 32


def there(root: Path) -> set[str]:
    return set(os.listdir(root / seals.DIRECTORY))


async def seal(images: Images, name: str, content: bytes = b"seal") -> None:
    staging = await images.layers.stage()
    fd = seals.begin(staging)
    os.write(fd, content)
    os.close(fd)
    seals.keep(images.layers, staging, name)
    await images.layers.commit(staging, name)


def test_seals_go_with_layers_and_those_nobody_knows_at_start(tmp_path: Path) -> None:
    async def body() -> None:
        await images.layers.open()
        for name in (A, B):
            await seal(images, name)
        kept = add_image(images, "1" * 64, layers=[A])
        gone = add_image(images, "2" * 64, layers=[B])
        images.rows.remove(gone.id)
        await collect_layers(images)
        assert there(tmp_path) == {A}
        (tmp_path / seals.DIRECTORY / B).touch()
        await sweep_layers(images)
        assert there(tmp_path) == {A}
        fd = seals.open_seal(images.layers, A)
        assert fd is not None
        os.close(fd)
        assert seals.open_seal(images.layers, B) is None
        assert images.rows.get(kept.id) is not None

    with image_store(tmp_path) as images:
        asyncio.run(body())


def test_a_seal_that_was_given_up_is_none(tmp_path: Path) -> None:
    async def body() -> None:
        await images.layers.open()
        await seal(images, A, b"")
        assert seals.open_seal(images.layers, A) is None
        assert os.listdir(tmp_path / "staging") == []

    with image_store(tmp_path) as images:
        asyncio.run(body())


def test_the_scrub_takes_who_waited_longest_and_whose_time_is_in_the_future(tmp_path: Path) -> None:
    async def body() -> None:
        await images.layers.open()
        times = {A: 1000, B: 10**11, "c" * 32: 2000, "d" * 32: None}
        add_image(images, "1" * 64, layers=list(times))
        for name, at in times.items():
            await seal(images, name)
            if at is not None:
                os.utime(tmp_path / seals.DIRECTORY / name, (at, at))
        assert Scrub(images, Plan(1, 3600.0))._due() == [A, "c" * 32, B]

    with image_store(tmp_path) as images:
        asyncio.run(body())


def test_without_a_budget_the_scrub_ends_at_once(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        asyncio.run(Scrub(images, Plan(0, 1.0)).run())
        assert not Scrub(images, Plan(0, 1.0)).report().enabled
