"""Load images from files: an OCI layout directory, a `dir`, an `oci-archive` or a `docker-archive` tar, compressed or not.

An archive is unpacked by a worker, like a layer, into a staging directory, and then read as the layout it is.
"""

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.aio.together import together
from criollo.errors import Damaged, Invalid, NotFound
from criollo.images.admitted import admit_image, admit_source
from criollo.images.collect import assembling
from criollo.images.commit import Blob, Feed, add_layer, feed_from_file, plan, record
from criollo.images.context import Images
from criollo.images.layout import Found, LayerFile, NamedImage, broken_off, read_layout
from criollo.linux import files
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.platform import host_platform
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def load_images(images: Images, path: Path, *, name: str = "") -> list[NamedImage]:
    """Load every image that the file or directory holds for this platform, one after the other.

    Raises:
        Invalid: no such file, or neither an OCI layout nor a docker archive.
        NotFound: nothing in it is for this platform.
        Denied: the policy does not let images come from such a file, or not under these names.
        Damaged: a blob is not what its digest says.
        Exhausted: the disk is full.
    """
    loaded: dict[str, NamedImage] = {}
    async with opened_layout(images, path) as directory:
        place = await admit_source(images, directory, path)
        layout = read_layout(directory, name=name)
        while (found := await threads.files(_next, layout, path)) is not None:
            await admit_image(images, found, place)
            image = await load_found(images, directory, found)
            earlier = loaded[image.id].names if image.id in loaded else ()
            loaded[image.id] = NamedImage(image, (*earlier, *found.names))
    if not loaded:
        raise NotFound("image for platform", str(host_platform()), f"{path} has none")
    return list(loaded.values())


def _next(layout: Iterator[Found], path: Path) -> Found | None:
    try:
        return next(layout, None)
    except Invalid as error:
        raise Invalid(f"{path}: {error.field}", error.got, error.expected) from error


@asynccontextmanager
async def opened_layout(images: Images, path: Path) -> AsyncIterator[int]:
    """A descriptor of the layout's directory: `path` itself, or where the archive was unpacked to."""
    source = open_file(path, "an image archive or layout", stat.S_ISREG, stat.S_ISDIR)
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            yield source
            return
        staging = await images.layers.stage()
        try:
            try:
                async with images.workers.unpack(staging.fd, "auto", limit_bytes=images.layer_limit_bytes) as job:
                    await feed_from_file(source, None, job.pipe_fd)
                    await job.result()
            except Damaged as error:
                raise broken_off(path, "image archive", error) from error
            yield staging.fd
        finally:
            await cleanup(images.layers.discard(staging), what=f"unpacked archive {path}")
    finally:
        os.close(source)


def open_file(path: Path, wanted: str, *kinds: Callable[[int], bool]) -> int:
    """A descriptor for reading, of a file of one of the kinds. Raises Invalid."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid("path", str(path), f"{wanted} ({error.strerror})") from error
    if not any(fits(os.fstat(source).st_mode) for fits in kinds):
        os.close(source)
        raise Invalid("path", str(path), f"{wanted}, in a regular file{' or a directory' if stat.S_ISDIR in kinds else ''}")
    return source


async def load_found(images: Images, directory: int, found: Found) -> Image:
    """Load one image of the layout in `directory`. Raises as `load_images`."""
    blobs = plan(found.manifest, found.config)
    if len(found.layer_files) != len(blobs):
        raise Invalid("archive", f"{len(found.layer_files)} layer files", f"{len(blobs)}, as the config says")

    async with assembling(images, [blob.name for blob in blobs]):
        await together(_add(images, blob, _feed(directory, file)) for blob, file in zip(blobs, found.layer_files, strict=True))
        image_id, digest = ImageId(Digest.of(found.config).hex), Digest.of(found.raw_manifest)
        images.rows.signatures.keep(image_id, digest, found.signatures, now_ns=images.clock())  # first: no image without them
        image = await record(
            images,
            Image(
                id=image_id,
                names=found.names,
                digests=found.digests,
                manifest_digest=str(digest),
                manifest=found.raw_manifest,
                config=found.config,
                layers=tuple(blob.name for blob in blobs),
                size_bytes=0,
                pulled_ns=images.clock(),
            ),
        )
    await images.flush.now(image.layers)
    log.info("image loaded", image=image.id, names=",".join(image.names))
    return image


async def _add(images: Images, blob: Blob, feed: Feed) -> None:
    """As `add_layer`. That a file is not its digest is told before whatever its damage made of it, which a worker may meet
    first."""
    try:
        await add_layer(images, blob, feed)
    except Damaged:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            await feed(nowhere)
        finally:
            os.close(nowhere)
        raise


def _feed(directory: int, file: LayerFile) -> Feed:
    async def feed(pipe_fd: int) -> None:
        try:
            source = files.open_regular_in_root(directory, file.path)
        except OSError as error:
            raise Damaged(f"layer {file.path} is missing from the archive; make the archive again") from error
        try:
            await feed_from_file(source, file.digest, pipe_fd)
        finally:
            os.close(source)

    return feed
