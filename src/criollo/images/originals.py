"""An image's blobs as they travelled, made again from its layers, where that can be: then its signatures fit.

Packing is deterministic, so what kpod itself has packed comes out byte for byte: images that it pushed, and those of its
archives. Other tools order, compress and describe files in their own way, and their bytes are gone (docs/decisions/0004).
"""

import contextlib
import os
from pathlib import Path

from criollo.aio import threads
from criollo.errors import Unsupported
from criollo.images.context import Images
from criollo.images.history import descriptors
from criollo.images.packed import pack_layer
from criollo.images.savedforms import Written
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor, compression_of


def signatures_of(images: Images, image: Image) -> tuple[bytes, ...]:
    """Those that are kept of the manifest that is kept."""
    found = dict(images.rows.signatures.of(image.id))
    return found.get(image.manifest_digest, ())


async def write_original(images: Images, image: Image, blobs: Path) -> Written | None:
    """Write the layers of an image into `blobs` under their own digests; None where they come out otherwise.

    Raises:
        Exhausted, HostFailed: the disk does not take them.
    """
    origins = descriptors(image)
    if len(origins) != len(image.layers) or not Digest(image.manifest_digest).matches(image.manifest):
        return None
    written: list[Path] = []
    for layer, origin in zip(image.layers, origins, strict=True):
        path = blobs / origin.digest.hex
        if path not in written:
            if not await _write(images, images.layers.path(layer), origin, path):
                await threads.files(_remove, written)
                return None
            written.append(path)
    return Written((), image.config, (), image.manifest, signatures_of(images, image))


async def _write(images: Images, layer: Path, origin: Descriptor, path: Path) -> bool:
    try:
        compression = compression_of(origin.media_type)
    except Unsupported:
        return False  # an encrypted layer, or one of a type that is its own
    sink = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        packed = await pack_layer(images, layer, sink, compression)
    finally:
        os.close(sink)
    if packed.digest != origin.digest:
        os.unlink(path)
        return False
    return True


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
