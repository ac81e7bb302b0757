"""Load images from files: an OCI layout directory, an `oci-archive` or a `docker-archive` tar, compressed or not.

An archive is unpacked by a worker, like a layer, into a staging directory, and then read as the layout it is.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.aio.together import together
from criollo.errors import Damaged, Invalid, explain
from criollo.images.commit import Blob, Feed, add_layer, feed_from_file, leased, plan, record
from criollo.images.context import MAX_LAYER_BYTES, Images
from criollo.images.layout import Found, read_layout
from criollo.linux import files
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import compression_of
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # RFC 1952, RFC 8878


async def load_images(images: Images, path: Path, *, name: str = "") -> list[Image]:
    """Load every image that the file or directory holds for this platform.

    Raises:
        Invalid: no such file, or neither an OCI layout nor a docker archive.
        Damaged: a blob is not what its digest says.
        Exhausted: the disk is full.
    """
    async with _opened(images, path) as directory:
        found = await threads.files(read_layout, directory, name=name)
        return [await _load(images, directory, each) for each in found]


@asynccontextmanager
async def _opened(images: Images, path: Path) -> AsyncIterator[int]:
    """A descriptor of the layout's directory: `path` itself, or where the archive was unpacked to."""
    if path.is_dir():
        with explain(f"open {path}"):
            directory = files.open_directory(path)
        try:
            yield directory
        finally:
            os.close(directory)
        return
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid("path", str(path), f"an image archive or layout ({error.strerror})") from error
    staging = await images.layers.stage()
    try:
        compression = next((kind for magic, kind in _MAGIC.items() if os.pread(source, 4, 0).startswith(magic)), "none")
        async with images.workers.unpack(staging.fd, compression, limit_bytes=MAX_LAYER_BYTES) as job:
            await feed_from_file(source, None, job.pipe_fd)
            await job.result()
        yield staging.fd
    finally:
        os.close(source)
        await images.layers.discard(staging)


async def _load(images: Images, directory: int, found: Found) -> Image:
    blobs = plan(found.manifest, found.config)
    if len(found.layer_files) != len(blobs):
        raise Invalid("archive", f"{len(found.layer_files)} layer files", f"{len(blobs)}, as the config says")

    async def add(blob: Blob, file: str) -> None:
        await add_layer(images, blob, _feed(directory, blob, file))

    with leased(images, [blob.name for blob in blobs]):
        await together(add(blob, file) for blob, file in zip(blobs, found.layer_files, strict=True))
        image = await record(
            images,
            Image(
                id=ImageId(Digest.of(found.config).hex),
                names=found.names,
                manifest_digest=str(Digest.of(found.raw_manifest)),
                manifest=found.raw_manifest,
                config=found.config,
                layers=tuple(blob.name for blob in blobs),
                size_bytes=0,
                pulled_ns=images.clock(),
            ),
        )
    log.info("image loaded", image=image.id, names=",".join(image.names))
    return image


def _feed(directory: int, blob: Blob, file: str) -> Feed:
    # A plain layer's digest is its diff id, which the worker checks; a compressed one has a digest of its own.
    is_plain = compression_of(blob.descriptor.media_type) == "none"

    async def feed(pipe_fd: int) -> None:
        try:
            source = files.open_in_root(directory, file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise Damaged(f"layer {blob.descriptor.digest} is missing from the archive; make the archive again") from error
        try:
            await feed_from_file(source, None if is_plain else blob.descriptor.digest, pipe_fd)
        finally:
            os.close(source)

    return feed
