"""From blobs to an image on the disk: what pulling and loading share.

A layer's directory gets its name when its diff id is right; then comes its row; the image's row is last. When all of it is on
the disk is another matter: see `flush`.
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Damaged, Exhausted, NotFound, explain
from criollo.images import seals
from criollo.images.context import Finished, Images
from criollo.linux import files
from criollo.model.image import Image
from criollo.oci.digest import Digest, chain_ids
from criollo.oci.encryption import WrappedKey, layer_key, plain_type, wrapped_key
from criollo.oci.image_spec import Descriptor, Manifest, check_layers, compression_of, decode_config
from criollo.state.images import LayerRow
from criollo.storage.layers import Staging, layer_name
from criollo.workers.messages import Cipher, Unpacked, UnwrapJob

Feed = Callable[[int], Awaitable[None]]
BLOB_FILE: Final = "blob"  # of an artifact, in a layer's directory of its own


class Blob(NamedTuple):
    """A layer to be: where it comes from, what it must unpack to, what its directory will be called."""

    descriptor: Descriptor
    diff_id: Digest
    name: str
    below: tuple[str, ...] = ()  # the layers under it, bottom first
    as_is: bool = False  # a file of an artifact: not unpacked
    wrapped: WrappedKey | None = None  # of an encrypted layer


def plan(manifest: Manifest, config: bytes) -> list[Blob]:
    """Match layers with the config's diff ids; bottom first.

    Raises:
        Invalid: their numbers differ.
        Unsupported: a layer is of a type we cannot unpack, or encrypted in a way that we do not know.
    """
    found = decode_config(config)
    check_layers(manifest, found)
    diff_ids = found.rootfs.diff_ids
    for layer in manifest.layers:
        compression_of(plain_type(layer.media_type))
    names = [layer_name(chain) for chain in chain_ids(diff_ids)]
    return [
        Blob(descriptor, diff_id, names[at], tuple(names[:at]), wrapped=wrapped_key(descriptor))
        for at, (descriptor, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
    ]


def foreign_layer_missing(digest: Digest) -> NotFound:
    """What a registry means that lacks a layer which not every registry may hand out. Its URLs are not followed: they would
    let whoever made the image choose what this node asks of whom."""
    return NotFound(
        "foreign layer",
        str(digest),
        "the registry lacks it, and layers come from nowhere else; push the image with all its layers",
    )


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
        failures = images.flush.failures
        async with images.unpacks.hold(source):
            staging, unpacked = await stage_layer(images, blob, feed)
        try:
            await _commit(images, staging, blob, unpacked.implied)
        except BaseException:
            await cleanup(_undo(images, staging, blob), what=f"layer {blob.name}, which is not finished")
            raise
        row = LayerRow(blob.name, unpacked.diff_id, unpacked.size_bytes, unpacked.inodes, images.boot)
        images.finished[blob.name] = Finished(row, time.monotonic(), failures)


async def stage_layer(images: Images, blob: Blob, feed: Feed) -> tuple[Staging, Unpacked]:
    """A layer whose digests are right, in a staging directory that the caller commits or discards. Raises as `add_layer`."""
    return await (_keep if blob.as_is else _unpack)(images, blob, feed)


async def _unpack(images: Images, blob: Blob, feed: Feed) -> tuple[Staging, Unpacked]:
    staging = await images.layers.stage()
    try:
        # The first bytes tell the compression, as for other runtimes: media types of layers sometimes lie about it.
        cipher = await _cipher(images, blob)
        unpacked = await _unpack_into(images, staging, feed, cipher)
        if unpacked.diff_id != str(blob.diff_id):
            raise Damaged(
                f"layer {blob.descriptor.digest} unpacks to {unpacked.diff_id}, its config says {blob.diff_id}; "
                "the image was built wrong or its config belongs to another one"
            )
    except BaseException:
        await cleanup(_discard(images, staging), what=f"staging of layer {blob.name}")
        raise
    return staging, unpacked


async def _unpack_into(images: Images, staging: Staging, feed: Feed, cipher: Cipher | None) -> Unpacked:
    seal_fd = await threads.descriptor(lambda: seals.begin(staging))
    try:
        limit_bytes = images.layer_limit_bytes
        async with images.workers.unpack(staging.fd, "auto", limit_bytes=limit_bytes, cipher=cipher, seal_fd=seal_fd) as job:
            await feed(job.pipe_fd)
            return await job.result()
    finally:
        os.close(seal_fd)


async def _cipher(images: Images, blob: Blob) -> Cipher | None:
    """What opens an encrypted layer, by the keys of this node."""
    if blob.wrapped is None:
        return None
    job = UnwrapJob(jwes=blob.wrapped.jwes, keys=str(images.decryption_keys), what=f"layer {blob.descriptor.digest}")
    found = layer_key(await images.workers.unwrap(job), blob.wrapped, layer=str(blob.descriptor.digest))
    return Cipher(key=found.key, nonce=found.nonce, hmac=blob.wrapped.hmac)


async def _keep(images: Images, blob: Blob, feed: Feed) -> tuple[Staging, Unpacked]:
    """Store a blob as it travels, in a file that nobody may execute; `feed` checks its digest."""
    size_bytes, limit_bytes = blob.descriptor.size, images.layer_limit_bytes
    if size_bytes > limit_bytes:
        raise Exhausted(f"blob {blob.diff_id} has {size_bytes} bytes, more than {limit_bytes}, the limit of this node")
    staging = await images.layers.stage()
    try:
        fd = os.open(BLOB_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=staging.fd)
        try:
            await feed(fd)
        finally:
            os.close(fd)
    except BaseException:
        await cleanup(images.layers.discard(staging), what=f"staging of blob {blob.descriptor.digest}")
        raise
    return staging, Unpacked(diff_id=str(blob.diff_id), size_bytes=size_bytes, inodes=2)


async def _commit(images: Images, staging: Staging, blob: Blob, implied: Sequence[str]) -> None:
    """Give the layer its name. One that passes through directories without describing them waits for those below it:
    there the directories are described. Nobody waits for a layer above, so this cannot lock up."""
    await threads.files(seals.keep, images.layers, staging, blob.name)
    await images.layers.commit(staging, blob.name)
    if not implied:
        return
    for name in blob.below:
        await _wait_for(images, blob, name)
    await images.layers.inherit(images.layers.path(blob.name), implied, blob.below)


async def _undo(images: Images, staging: Staging, blob: Blob) -> None:
    await _discard(images, staging)
    await images.layers.remove(blob.name)
    await threads.files(seals.remove, images.layers, [blob.name])


async def _discard(images: Images, staging: Staging) -> None:
    await threads.files(seals.drop, staging)
    await images.layers.discard(staging)


async def _wait_for(images: Images, blob: Blob, below: str) -> None:
    async with images.layer_locks.hold(below):
        if not is_here(images, below):
            raise Damaged(f"layer {blob.descriptor.digest} lies on layer {below}, which is missing; pull again")


async def record(images: Images, image: Image) -> Image:
    """Make an image visible whose layers are all here; its size is worked out from theirs."""
    for name in image.layers:
        if name in images.finished:
            finished = images.finished[name]
            images.rows.add_layer(images.flush.settled(finished.row, finished.failures))
            del images.finished[name]
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
            files.write_all(pipe_fd, chunk)
    if hasher is not None and digest is not None and hasher.hexdigest() != digest.hex:
        raise Damaged(f"blob {digest} is not what its digest says; make the archive again")
