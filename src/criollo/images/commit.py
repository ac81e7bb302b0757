"""From blobs to an image on the disk: what pulling and loading share.

A layer's directory gets its name when its diff id is right; its row comes after one syncfs; the image's row is last.
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Damaged, explain
from criollo.images.context import Finished, Images
from criollo.model.image import Image
from criollo.oci.digest import Digest, chain_ids
from criollo.oci.image_spec import Descriptor, Manifest, check_layers, compression_of, decode_config
from criollo.state.images import LayerRow
from criollo.storage.layers import Staging, layer_name
from criollo.workers.messages import Unpacked

Feed = Callable[[int], Awaitable[None]]


class Blob(NamedTuple):
    """A layer to be: where it comes from, what it must unpack to, what its directory will be called."""

    descriptor: Descriptor
    diff_id: Digest
    name: str
    below: tuple[str, ...]  # the layers under it, bottom first


def plan(manifest: Manifest, config: bytes) -> list[Blob]:
    """Match layers with the config's diff ids; bottom first.

    Raises:
        Invalid: their numbers differ.
        Unsupported: a layer is of a type we cannot unpack.
    """
    found = decode_config(config)
    check_layers(manifest, found)
    diff_ids = found.rootfs.diff_ids
    for layer in manifest.layers:
        compression_of(layer.media_type)
    names = [layer_name(chain) for chain in chain_ids(diff_ids)]
    return [
        Blob(descriptor, diff_id, names[at], tuple(names[:at]))
        for at, (descriptor, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
    ]


def is_here(images: Images, name: str) -> bool:
    """Whether the layer's directory is whole. A row without a directory is damage: the layer is fetched again."""
    return (images.rows.layer(name) is not None or name in images.finished) and images.layers.has(name)


async def add_layer(images: Images, blob: Blob, feed: Feed, *, source: str = "") -> None:
    """Unpack a layer unless it is here; `feed(fd)` writes its bytes, as they travel, into the pipe `fd`.

    Layers of one `source` share a few places. All layers of an image must be added at once: one may wait for those below.

    Raises:
        Damaged: the unpacked bytes are not those of the diff id.
        Exhausted: the disk is full, or the layer is beyond the limit.
        whatever `feed` or the worker raises; the worker's error wins, since it explains a broken pipe.
    """
    async with images.layer_locks.hold(blob.name):
        if is_here(images, blob.name):
            return
        async with images.unpacks.hold(source):
            staging, unpacked = await _unpack(images, blob, feed)
        try:
            await _commit(images, staging, blob, unpacked.implied)
        except BaseException:
            await cleanup(_undo(images, staging, blob), what=f"layer {blob.name}, which is not finished")
            raise
        row = LayerRow(blob.name, unpacked.diff_id, unpacked.size_bytes, unpacked.inodes)
        images.finished[blob.name] = Finished(row, time.monotonic())


async def _unpack(images: Images, blob: Blob, feed: Feed) -> tuple[Staging, Unpacked]:
    staging = await images.layers.stage()
    try:
        # The first bytes tell the compression, as for other runtimes: media types of layers sometimes lie about it.
        async with images.workers.unpack(staging.fd, "auto", limit_bytes=images.layer_limit_bytes) as job:
            await feed(job.pipe_fd)
            unpacked = await job.result()
        if unpacked.diff_id != str(blob.diff_id):
            raise Damaged(
                f"layer {blob.descriptor.digest} unpacks to {unpacked.diff_id}, its config says {blob.diff_id}; "
                "the image was built wrong or its config belongs to another one"
            )
    except BaseException:
        await cleanup(images.layers.discard(staging), what=f"staging of layer {blob.name}")
        raise
    return staging, unpacked


async def _commit(images: Images, staging: Staging, blob: Blob, implied: Sequence[str]) -> None:
    """Give the layer its name. One that passes through directories without describing them waits for those below it:
    there the directories are described. Nobody waits for a layer above, so this cannot lock up."""
    await images.layers.commit(staging, blob.name)
    if not implied:
        return
    for name in blob.below:
        await _wait_for(images, blob, name)
    await images.layers.inherit(blob.name, implied, blob.below)


async def _undo(images: Images, staging: Staging, blob: Blob) -> None:
    await images.layers.discard(staging)
    await images.layers.remove(blob.name)


async def _wait_for(images: Images, blob: Blob, below: str) -> None:
    async with images.layer_locks.hold(below):
        if not is_here(images, below):
            raise Damaged(f"layer {blob.descriptor.digest} lies on layer {below}, which is missing; pull again")


async def record(images: Images, image: Image) -> Image:
    """Make an image visible whose layers are all here; its size is worked out from theirs."""
    fresh = [images.finished[name].row for name in image.layers if name in images.finished]
    if fresh:
        await images.layers.sync()
        for row in fresh:
            images.rows.add_layer(row)
            images.finished.pop(row.name, None)
    rows = [images.rows.layer(name) for name in image.layers]
    size = sum(row.size_bytes for row in rows if row is not None) + len(image.config) + len(image.manifest)
    return images.rows.add(msgspec.structs.replace(image, size_bytes=size))


async def feed_from_file(source_fd: int, digest: Digest | None, pipe_fd: int) -> None:
    """A `Feed` from a file: copies it into the pipe and checks its digest on the way.

    Raises:
        Damaged: the file is not what its digest says.
    """
    await threads.transfers(_copy, source_fd, digest, pipe_fd)


def _copy(source_fd: int, digest: Digest | None, pipe_fd: int) -> None:
    hasher = digest.hasher() if digest is not None else None
    with explain("copy from the archive"):
        os.lseek(source_fd, 0, os.SEEK_SET)
        while chunk := os.read(source_fd, 1 << 20):
            if hasher is not None:
                hasher.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(pipe_fd, view) :]
    if hasher is not None and digest is not None and hasher.hexdigest() != digest.hex:
        raise Damaged(f"blob {digest} is not what its digest says; make the archive again")
