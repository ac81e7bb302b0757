"""images.flush: what waits for the disk, what a failing disk leaves in doubt, what another boot makes of it."""

import asyncio
from pathlib import Path

import pytest
from support.image_store import add_image, run

from criollo.errors import HostFailed
from criollo.images.collect import sweep_layers
from criollo.images.context import Images
from criollo.state.images import ImageRows, LayerRow

A, B = "a" * 32, "b" * 32


def written(images: Images, name: str, *, boot: str) -> None:
    (images.layers.directory / name).mkdir(exist_ok=True)
    images.rows.add_layer(LayerRow(name, "sha256:" + "0" * 64, 1, 1, boot))


async def fail() -> None:
    raise HostFailed("input/output error")


def boots(path: Path) -> dict[str, str]:
    """What is kept for the next process."""
    rows = ImageRows(path)
    try:
        return {row.name: row.boot for row in rows.layers()}
    finally:
        rows.close()


def test_a_flush_is_kept(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot=images.boot)
        written(images, B, boot="")
        assert images.flush.waiting() == {A}
        assert boots(images.rows.path) == {A: images.boot, B: ""}
        await images.flush.now()
        assert images.flush.waiting() == set()
        assert boots(images.rows.path) == {A: "", B: ""}

    run(tmp_path, body)


def test_what_an_earlier_process_left_is_flushed(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot=images.boot)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(images.flush.follow())
            while images.flush.waiting():
                await asyncio.sleep(0)
            written(images, B, boot=images.boot)
            images.flush.wake()
            while images.flush.waiting():
                await asyncio.sleep(0)
            following.cancel()

    run(tmp_path, body)


def test_a_disk_that_failed_once_leaves_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot=images.boot)
        with monkeypatch.context() as patch:
            patch.setattr(images.layers, "sync", fail)
            await images.flush.rest()
            with pytest.raises(HostFailed):
                await images.flush.now()
        written(images, B, boot=images.boot)
        await images.flush.now()
        assert boots(images.rows.path) == {A: images.boot, B: ""}

    run(tmp_path, body)
    assert "layers may be damaged" in caplog.text


def test_an_image_that_a_power_cut_came_before_is_forgotten(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot="")
        written(images, B, boot="")
        kept = add_image(images, "1" * 64, layers=[A])
        lost = add_image(images, "2" * 64, layers=[A, B])
        written(images, B, boot="the one before")
        await images.flush.now()  # comes too late for it
        await sweep_layers(images)
        assert [image.id for image in images.rows.all()] == [kept.id]
        assert (images.layers.has(A), images.layers.has(B)) == (True, False)
        assert images.rows.get(lost.id) is None

    run(tmp_path, body)
