"""images.flush: what waits for the disk, what a failing disk leaves in doubt, what another boot makes of it."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from support.image_store import NOT_NEEDED, add_image, planned, run
from support.images import file, make_image
from support.waiting import until

from criollo.errors import HostFailed
from criollo.images import commit
from criollo.images.collect import sweep_layers
from criollo.images.commit import Blob, Feed, add_layer, record
from criollo.images.context import Images
from criollo.images.flush import DOUBTFUL
from criollo.state.images import ImageRows, LayerRow
from criollo.storage.layers import Staging
from criollo.workers.messages import Unpacked

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
        assert boots(images.rows.path) == {A: images.boot + DOUBTFUL, B: ""}

    run(tmp_path, body)
    assert "layers may be damaged" in caplog.text


def test_what_needs_a_layer_in_doubt_is_not_answered_as_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot=images.boot)
        with monkeypatch.context() as patch:
            patch.setattr(images.layers, "sync", fail)
            await images.flush.rest()
        written(images, B, boot=images.boot)
        with pytest.raises(HostFailed, match="1 of 2 layers"):
            await images.flush.now([A, B])
        await images.flush.now([B])
        assert images.flush.waiting() == set()
        images.rows.drop_layers([A])  # its image was removed
        written(images, A, boot=images.boot)
        assert images.flush.waiting() == {A}
        await images.flush.now([A, B])
        assert boots(images.rows.path) == {A: "", B: ""}

    run(tmp_path, body)


def test_doubt_outlives_the_daemon_and_is_no_loss_in_the_same_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(images: Images) -> None:
        written(images, A, boot=images.boot)
        add_image(images, "1" * 64, layers=[])
        images.rows.add(msgspec.structs.replace(images.rows.all()[0], layers=(A,)))
        monkeypatch.setattr(images.layers, "sync", fail)
        await images.flush.rest()

    async def comes_back(images: Images) -> None:
        await images.flush.rest()
        await sweep_layers(images)
        assert [image.layers for image in images.rows.all()] == [(A,)]
        with pytest.raises(HostFailed, match="1 of 1 layers"):
            await images.flush.now([A])

    async def boots_again(images: Images) -> None:
        images.boot = "another"
        await sweep_layers(images)
        assert images.rows.all() == []

    run(tmp_path, fails)
    run(tmp_path, comes_back)
    run(tmp_path, boots_again)


def test_of_two_flushes_at_once_each_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot=images.boot)
        at_work, go_on = asyncio.Event(), asyncio.Event()

        async def fail_slowly() -> None:
            at_work.set()
            await go_on.wait()
            raise HostFailed("input/output error")

        usual = images.layers.sync
        monkeypatch.setattr(images.layers, "sync", fail_slowly)
        async with asyncio.TaskGroup() as group:
            group.create_task(images.flush.rest())
            await at_work.wait()
            monkeypatch.setattr(images.layers, "sync", usual)
            loading = group.create_task(images.flush.now())
            go_on.set()
        assert loading.done()
        assert boots(images.rows.path) == {A: images.boot + DOUBTFUL}

    run(tmp_path, body)


def test_a_layer_that_comes_anew_during_a_flush_waits_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        written(images, A, boot=images.boot)
        written(images, B, boot=images.boot)
        usual = images.layers.sync

        async def another_comes() -> None:
            await usual()
            images.rows.drop_layers([A])
            written(images, A, boot=images.boot)

        with monkeypatch.context() as patch:
            patch.setattr(images.layers, "sync", another_comes)
            await images.flush.now()
        assert images.flush.waiting() == {A}
        await images.flush.now()
        assert boots(images.rows.path) == {A: "", B: ""}

    run(tmp_path, body)


def test_nothing_is_being_flushed_any_more_after_a_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        begun, go_on, usual = threading.Event(), threading.Event(), images.rows.flush

        def flush() -> None:
            begun.set()
            assert go_on.wait(60)
            usual()

        monkeypatch.setattr(images.rows, "flush", flush)
        written(images, A, boot=images.boot)
        async with asyncio.TaskGroup() as group:
            flushing = group.create_task(images.flush.now())
            await until(begun.is_set)
            resting = group.create_task(images.flush.rest())
            asyncio.get_running_loop().call_soon(go_on.set)
            await resting
            assert flushing.done()

    run(tmp_path, body)


def test_what_is_written_while_a_flush_fails_is_in_doubt_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of lost writes once, whosever they are."""

    async def stage_while_a_flush_fails(images: Images, blob: Blob, feed: Feed) -> tuple[Staging, Unpacked]:
        staging = await images.layers.stage()
        written(images, A, boot=images.boot)
        with monkeypatch.context() as patch:
            patch.setattr(images.layers, "sync", fail)
            await images.flush.rest()
        return staging, Unpacked(diff_id=str(blob.diff_id), size_bytes=1, inodes=1)

    async def body(images: Images) -> None:
        [blob] = planned(make_image([[file("a")]]))
        monkeypatch.setattr(commit, "stage_layer", stage_while_a_flush_fails)
        await add_layer(images, blob, NOT_NEEDED)
        image = msgspec.structs.replace(add_image(images, "1" * 64), layers=(blob.name,))
        await record(images, image)
        with pytest.raises(HostFailed, match="1 of 1 layers"):
            await images.flush.now(image.layers)
        assert boots(images.rows.path)[blob.name] == images.boot + DOUBTFUL

    run(tmp_path, body)


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
