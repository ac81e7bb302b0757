"""images.commit with real workers: layers that several verbs want at once, that fail, that are beyond the limit."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import msgspec
import pytest
from support.image_store import image_store, planned
from support.images import Entry, Image, directory, file, make_image

from criollo.errors import Damaged, Exhausted, Unavailable
from criollo.images.collect import assembling
from criollo.images.commit import Blob, Feed, add_layer, record
from criollo.images.context import Images
from criollo.model import image as records
from criollo.model.ids import ImageId
from criollo.oci.digest import Digest
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node


def run(root: Path, body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    async def inside(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            await body(images)
        assert os.listdir(root / "staging") == []

    with image_store(root, workers=Workers()) as images:
        asyncio.run(inside(images))


def feed_of(content: bytes, asked: list[int] | None = None, gate: asyncio.Event | None = None) -> Feed:
    """Writes the blob, when the gate is open; `asked` has an entry per time it was wanted."""

    async def feed(pipe_fd: int) -> None:
        if asked is not None:
            asked.append(len(content))
        if gate is not None:
            await gate.wait()
        await asyncio.get_running_loop().run_in_executor(None, _write, pipe_fd, content)

    return feed


def _write(pipe_fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(pipe_fd, view) :]


def there(images: Images) -> set[str]:
    return set(os.listdir(images.layers.directory)) - {"empty"}


def record_of(image: Image, blobs: Sequence[Blob], name: str) -> records.Image:
    return records.Image(
        id=ImageId(image.id),
        names=(name,),
        manifest_digest=image.digest,
        manifest=image.manifest,
        config=image.config,
        layers=tuple(blob.name for blob in blobs),
        size_bytes=0,
        pulled_ns=1,
    )


async def add_all(images: Images, image: Image) -> list[Blob]:
    blobs = planned(image)
    async with asyncio.TaskGroup() as group:
        for blob, layer in zip(blobs, image.layers, strict=True):
            group.create_task(add_layer(images, blob, feed_of(layer.blob)))
    return blobs


def one_layer(*entries: Entry) -> tuple[Blob, bytes]:
    image = make_image([list(entries)])
    return planned(image)[0], image.layers[0].blob


def test_a_layer_that_many_want_is_fetched_once(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        blob, content = one_layer(file("a", "once"))
        asked: list[int] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(add_layer(images, blob, feed_of(content, asked)))
        assert len(asked) == 1
        assert there(images) == set(images.finished) == {blob.name}

    run(tmp_path, body)


def test_when_the_first_fails_the_next_fetches_it(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        blob, content = one_layer(file("a", "retried"))
        gate = asyncio.Event()

        async def broken(pipe_fd: int) -> None:
            await gate.wait()
            raise Unavailable("registry went away")

        first = asyncio.get_running_loop().create_task(add_layer(images, blob, broken))
        await asyncio.sleep(0)
        second = asyncio.get_running_loop().create_task(add_layer(images, blob, feed_of(content)))
        gate.set()
        with pytest.raises(Unavailable, match="registry went away"):
            await first
        await second
        assert there(images) == {blob.name}

    run(tmp_path, body)


def test_a_bomb_ends_at_the_limit_and_leaves_nothing(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        images.layer_limit_bytes = 1 << 20
        blob, content = one_layer(file("zeros", bytes(64 << 20)))
        assert len(content) < 1 << 17
        with pytest.raises(Exhausted, match="more than 1048576 bytes"):
            await add_layer(images, blob, feed_of(content))
        assert there(images) == set()

    run(tmp_path, body)


def test_a_cancelled_layer_leaves_nothing(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        blob, content = one_layer(file("a", "cancelled"))
        asked: list[int] = []
        task = asyncio.get_running_loop().create_task(add_layer(images, blob, feed_of(content, asked, asyncio.Event())))
        while not asked:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert there(images) == set()
        await add_layer(images, blob, feed_of(content))

    run(tmp_path, body)


def test_a_directory_that_a_layer_only_passes_through_looks_as_below(tmp_path: Path) -> None:
    """The upper layer, unpacked first, waits for the lower one, which describes the directory."""

    async def body(images: Images) -> None:
        image = make_image([[directory("shared", mode=0o1777, uid=7, gid=8)], [file("shared/top", "x")]])
        low, top = planned(image)
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(add_layer(images, low, feed_of(image.layers[0].blob, gate=gate)))
            group.create_task(add_layer(images, top, feed_of(image.layers[1].blob)))
            while top.name not in there(images):
                await asyncio.sleep(0.005)
            assert top.name not in images.finished
            gate.set()
        status = (images.layers.path(top.name) / "shared").stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1777, 7, 8)

    run(tmp_path, body)


def test_without_the_layer_below_the_one_above_does_not_stay(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        image = make_image([[directory("shared")], [file("shared/top", "x")]])
        low, top = planned(image)
        wrong = low._replace(diff_id=Digest.of(b"other"))
        asked: list[int] = []
        gate = asyncio.Event()
        lower = asyncio.get_running_loop().create_task(add_layer(images, wrong, feed_of(image.layers[0].blob, asked, gate)))
        while not asked:
            await asyncio.sleep(0.005)
        upper = asyncio.get_running_loop().create_task(add_layer(images, top, feed_of(image.layers[1].blob)))
        while top.name not in there(images):
            await asyncio.sleep(0.005)
        gate.set()
        with pytest.raises(Damaged, match="its config says"):
            await lower
        with pytest.raises(Damaged, match="which is missing; pull again"):
            await upper
        assert there(images) == set(images.finished) == set()

    run(tmp_path, body)


def test_images_that_share_fresh_layers_are_recorded_at_once(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        shared = [[file("a", "base")], [file("b", "middle")]]
        made = [make_image([*shared, [file("c", f"{number}")]]) for number in range(4)]

        async def assemble(number: int, image: Image) -> None:
            async with assembling(images, [blob.name for blob in planned(image)]):
                blobs = await add_all(images, image)
                await record(images, record_of(image, blobs, f"a.example/b:{number}"))

        async with asyncio.TaskGroup() as group:
            for number, image in enumerate(made):
                group.create_task(assemble(number, image))
        assert {image.id for image in images.rows.all()} == {image.id for image in made}
        assert len(images.rows.layers()) == len(there(images)) == 6
        assert (images.finished, images.leases) == ({}, {})
        (first, *_) = images.rows.all()
        sizes = sum(row.size_bytes for row in images.rows.layers() if row.name in first.layers)
        assert first.size_bytes == sizes + len(first.config) + len(first.manifest)

    run(tmp_path, body)


def test_a_second_record_adds_its_name(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        image = make_image([[file("a")]])
        blobs = await add_all(images, image)
        await record(images, record_of(image, blobs, "a.example/b:1"))
        again = await record(images, msgspec.structs.replace(record_of(image, blobs, "a.example/b:2"), pulled_ns=2))
        assert again.names == ("a.example/b:1", "a.example/b:2")

    run(tmp_path, body)


def test_a_row_without_its_directory_is_unpacked_again(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        image = make_image([[file("a", "back again")]])
        (blob,) = await add_all(images, image)
        await record(images, record_of(image, [blob], "a.example/b:1"))
        os.rename(images.layers.path(blob.name), tmp_path / "lost")
        await add_all(images, image)
        await record(images, record_of(image, [blob], "a.example/b:1"))
        assert (images.layers.path(blob.name) / "a").read_text() == "back again"

    run(tmp_path, body)


def test_a_slow_source_leaves_workers_to_others(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        gate = asyncio.Event()
        slow = [one_layer(file("a", f"slow {number}")) for number in range(20)]
        async with asyncio.TaskGroup() as group:
            for blob, content in slow:
                group.create_task(add_layer(images, blob, feed_of(content, gate=gate), source="slow.example"))
            quick, content = one_layer(file("a", "quick"))
            await add_layer(images, quick, feed_of(content), source="quick.example")
            assert there(images) == {quick.name}
            gate.set()
        assert len(there(images)) == 21

    run(tmp_path, body)
