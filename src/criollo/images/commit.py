"""From blobs to an image on the disk: what pulling and loading share.

A layer's directory gets its name when its diff id is right; its row comes after one syncfs; the image's row is last.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.errors import Damaged, Invalid
from criollo.images.context import MAX_LAYER_BYTES, Images
from criollo.model.image import Image
from criollo.oci.digest import Digest, chain_ids
from criollo.oci.image_spec import Descriptor, Manifest, compression_of, decode_config
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
    """
    diff_ids = decode_config(config).rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise Invalid("config.rootfs.diff_ids", f"{len(diff_ids)} ids", f"one for each of the {len(manifest.layers)} layers")
    names = [layer_name(chain) for chain in chain_ids(diff_ids)]
    return [
        Blob(descriptor, diff_id, names[at], tuple(names[:at]))
        for at, (descriptor, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
    ]


def is_here(images: Images, name: str) -> bool:
    """Whether the layer's directory is whole. A row without a directory is damage: the layer is fetched again."""
    return (images.rows.layer(name) is not None or name in images.finished) and images.layers.has(name)


async def add_layer(images: Images, blob: Blob, feed: Feed) -> None:
    """Unpack a layer unless it is here; `feed(fd)` writes its bytes, as they travel, into the pipe `fd`.

    Raises:
        Damaged: the unpacked bytes are not those of the diff id.
        whatever `feed` or the worker raises; the worker's error wins, since it explains a broken pipe.
    """
    async with images.layer_locks.hold(blob.name):
        if is_here(images, blob.name):
            return
        staging = await images.layers.stage()
        try:
            unpacked = await _unpack(images, blob, staging.fd, feed)
            if unpacked.diff_id != str(blob.diff_id):
                raise Damaged(
                    f"layer {blob.descriptor.digest} unpacks to {unpacked.diff_id}, its config says {blob.diff_id}; "
                    "the image was built wrong or its config belongs to another one"
                )
            await _commit(images, staging, blob, unpacked)
        finally:
            await images.layers.discard(staging)
        images.finished[blob.name] = LayerRow(blob.name, unpacked.diff_id, unpacked.size_bytes, unpacked.inodes)


async def _commit(images: Images, staging: Staging, blob: Blob, unpacked: Unpacked) -> None:
    """Give the layer its name. One that passes through directories without describing them waits for those below it:
    there the directories are described. Nobody waits for a layer above, so this cannot lock up."""
    await images.layers.commit(staging, blob.name)
    if not unpacked.implied:
        return
    for name in blob.below:
        async with images.layer_locks.hold(name):
            if not is_here(images, name):
                raise Damaged(f"layer {blob.descriptor.digest} lies on layer {name}, which is missing; pull again")
    await images.layers.inherit(blob.name, unpacked.implied, blob.below)


async def _unpack(images: Images, blob: Blob, staging_fd: int, feed: Feed) -> Unpacked:
    compression = compression_of(blob.descriptor.media_type)
    async with images.workers.unpack(staging_fd, compression, limit_bytes=MAX_LAYER_BYTES) as job:
        await feed(job.pipe_fd)
        return await job.result()


@contextlib.contextmanager
def leased(images: Images, names: Sequence[str]) -> Iterator[None]:
    """Keep the layers from being collected while the block runs."""
    images.leases.update(names)
    try:
        yield
    finally:
        images.leases.subtract(names)
        for name in names:
            if images.leases[name] <= 0:
                del images.leases[name]


async def record(images: Images, image: Image) -> Image:
    """Make an image visible whose layers are all here; its size is worked out from theirs."""
    fresh = [images.finished[name] for name in image.layers if name in images.finished]
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
    os.lseek(source_fd, 0, os.SEEK_SET)
    while chunk := os.read(source_fd, 1 << 20):
        if hasher is not None:
            hasher.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(pipe_fd, view) :]
    if hasher is not None and digest is not None and hasher.hexdigest() != digest.hex:
        raise Damaged(f"blob {digest} is not what its digest says; fetch the archive again")
