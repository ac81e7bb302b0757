"""storage.layers on a disk that loses writes: a flush tells of it, whoever has heard of it before."""

import asyncio
import os
from collections.abc import Coroutine, Iterator

import pytest
from support.lossy_disk import LossyDisk, lossy_disk

from criollo.errors import CriolloError
from criollo.storage.layers import Layers

pytestmark = pytest.mark.node

NAME = "0123456789abcdef" * 2
SIZE_BYTES = 8 << 20


@pytest.fixture
def disk() -> Iterator[LossyDisk]:
    with lossy_disk() as made:
        yield made


def run(layers: Layers, body: Coroutine[object, object, None]) -> None:
    async def inside() -> None:
        await layers.open()
        try:
            await body
        finally:
            layers.close()

    asyncio.run(inside())


async def add(layers: Layers) -> None:
    staging = await layers.stage()
    (staging.path / "file").write_bytes(os.urandom(SIZE_BYTES))
    await layers.commit(staging, NAME)


def test_a_lost_write_is_told_by_the_flush(disk: LossyDisk) -> None:
    layers = Layers(disk.mounted)

    async def body() -> None:
        await layers.sync()
        with disk.losing():
            await add(layers)
            with pytest.raises(CriolloError, match="flush the layer store"):
                await layers.sync()

    run(layers, body())


def test_a_lost_write_is_told_to_us_too_after_another_process_was(disk: LossyDisk) -> None:
    layers = Layers(disk.mounted)

    async def body() -> None:
        await layers.sync()
        with disk.losing():
            await add(layers)
            disk.tell_another()
        with pytest.raises(CriolloError, match="flush the layer store"):
            await layers.sync()
        await layers.sync()  # once each

    run(layers, body())
