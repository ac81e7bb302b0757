"""A root filesystem as a tar becomes an image of one layer. Its manifest is ours: no registry has it."""

import datetime
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from criollo.aio.cleanup import cleanup
from criollo.errors import Damaged, Invalid
from criollo.images.changes import apply_changes
from criollo.images.collect import assembling
from criollo.images.commit import feed_from_file, is_here, record
from criollo.images.context import Finished, Images
from criollo.images.layout import broken_off, encode_manifest, synthesize
from criollo.images.load import open_file
from criollo.images.resolve import candidates
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_LAYER
from criollo.oci.platform import Platform, host_platform
from criollo.state.images import LayerRow
from criollo.storage.layers import Staging, layer_name
from criollo.telemetry.log import get_logger
from criollo.workers.messages import Unpacked

log = get_logger(__name__)


class ImportWish(NamedTuple):
    """What the image shall be called and say of itself."""

    name: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""
    platform: Platform | None = None


async def import_image(images: Images, path: Path, wish: ImportWish) -> Image:
    """Make an image of a tar, plain or compressed.

    Raises:
        Invalid: no such file; a name or a change that cannot be.
        Damaged: it is no tar.
        Exhausted: the disk is full.
    """
    config = apply_changes(wish.changes)
    names = _names(images, wish.name)
    failures = images.flush.failures
    staging, unpacked = await _unpack(images, path)
    layer = layer_name(Digest(unpacked.diff_id))
    async with assembling(images, [layer]):
        await _commit(images, staging, layer, unpacked, failures=failures)
        document = _document(images, wish, config, unpacked)
        manifest = encode_manifest(synthesize(document), layer_type=OCI_LAYER)
        image = await record(
            images,
            Image(
                id=ImageId(Digest.of(document).hex),
                names=names,
                manifest_digest=str(Digest.of(manifest)),
                manifest=manifest,
                config=document,
                layers=(layer,),
                size_bytes=0,
                pulled_ns=images.clock(),
            ),
        )
    await images.flush.now(image.layers)
    log.info("image imported", image=image.id, names=",".join(image.names))
    return image


def _names(images: Images, name: str) -> tuple[str, ...]:
    if not name:
        return ()
    ref = candidates(images, name)[0]
    if ref.digest is not None:
        raise Invalid("name", name, "a name with a tag; the digest comes from what is imported")
    return (str(ref),)


async def _unpack(images: Images, path: Path) -> tuple[Staging, Unpacked]:
    source = open_file(path, "a tar", stat.S_ISREG)
    try:
        staging = await images.layers.stage()
        try:
            async with images.workers.unpack(staging.fd, "auto", limit_bytes=images.layer_limit_bytes) as job:
                await feed_from_file(source, None, job.pipe_fd)
                return staging, await job.result()
        except BaseException as error:
            await cleanup(images.layers.discard(staging), what=f"unpacked {path}")
            if isinstance(error, Damaged):
                raise broken_off(path, "tar", error) from error
            raise
    finally:
        os.close(source)


async def _commit(images: Images, staging: Staging, layer: str, unpacked: Unpacked, *, failures: int) -> None:
    """Give the tree its name, unless the same layer is here."""
    try:
        async with images.layer_locks.hold(layer):
            if not is_here(images, layer):
                await _settle(images, staging, layer)
                row = LayerRow(layer, unpacked.diff_id, unpacked.size_bytes, unpacked.inodes, images.boot)
                images.finished[layer] = Finished(row, time.monotonic(), failures)
    finally:
        await cleanup(images.layers.discard(staging), what=f"staging of layer {layer}")


async def _settle(images: Images, staging: Staging, layer: str) -> None:
    """Give the tree its name; a layer whose caller was cancelled meanwhile has no row, and goes."""
    try:
        await images.layers.commit(staging, layer)
    except BaseException:
        await cleanup(images.layers.remove(layer), what=f"layer {layer}, which is not finished")
        raise


def _document(images: Images, wish: ImportWish, config: dict[str, object], unpacked: Unpacked) -> bytes:
    platform = wish.platform or images.platform or host_platform()
    created = datetime.datetime.fromtimestamp(images.clock() / 1e9, datetime.UTC).isoformat().replace("+00:00", "Z")
    document: dict[str, object] = {"created": created, "architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    step = {"created": created, "created_by": "kpod import", "comment": wish.message or "imported from a tar"}
    document |= {
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [unpacked.diff_id]},
        "history": [step],
    }
    return msgspec.json.encode(document)
