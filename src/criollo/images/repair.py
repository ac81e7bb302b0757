"""`crio check --repair`: what a check found damaged is pulled again, layer by layer, while pods run.

Each layer comes from the repository of an image that has it, by the blob's digest in the stored manifest, and is checked as in
a pull: blob digest and diff id. The whole tree is made beside the store, flushed, and exchanged with the damaged one
(`images.retired`): who runs goes on with the old tree, who starts has the new one. Killed at any moment, either tree is whole
in its place, and what was begun is swept.
"""

from collections.abc import Iterator
from typing import Final

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import CriolloError, Damaged, HostFailed, Invalid
from criollo.images import retired, seals
from criollo.images.artifacts import plan_blobs
from criollo.images.check import garbage, is_known, label, look
from criollo.images.collect import collect_layers, leased
from criollo.images.commit import Blob, plan, stage_layer
from criollo.images.context import Images
from criollo.model.care import MISSING, REPAIRED, LayerCheck, Report
from criollo.model.image import Image
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.oci.reference import Reference
from criollo.registry.blobs import Route
from criollo.state.images import LayerRow
from criollo.storage.layers import Staging
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

OLD_S: Final = 24 * 3600.0  # as CRI-O: younger leftovers may be somebody's


async def repair_stores(images: Images, report: Report, *, force: bool = False, age_s: float = OLD_S) -> Report:
    """Mend what the report names, and note in it what became of it.

    With `force`, images that cannot be mended go where no container needs them, so that they are pulled again. Directories
    that nothing knows go when they are older than `age_s`.

    Raises:
        HostFailed: a directory cannot be moved away.
    """
    for found in sorted(report.damaged, key=lambda each: _height(images, each.layer)):
        await _mend(images, found)
    if force:
        _forget_images(images, report)
    await collect_layers(images)
    for found in report.damaged:
        if images.rows.layer(found.layer) is None and not images.rows.is_used(found.layer):
            found.state, found.not_repaired = REPAIRED, ""
    for name in await threads.files(garbage, images, age_s=age_s):
        async with images.layer_locks.hold(name):
            if not is_known(images, name):  # a pull may want it meanwhile
                await images.layers.remove(name)
                report.swept.append(name)
    return report


async def _mend(images: Images, found: LayerCheck) -> None:
    """Pull one layer again and look at it; notes how it went."""
    if found.unused:
        return  # collected with all that no image has
    try:
        await pull_layer(images, found.layer)
        again = await look(images, found.layer, quick=found.state == MISSING)
        if isinstance(again, LayerCheck):
            raise Damaged(
                f"it was pulled again and is still {again.state} ({'; '.join(again.findings[:3])}); is the disk well?"
            )
    except CriolloError as error:
        found.not_repaired = str(error)
        log.error("damaged layer not repaired", layer=found.layer, images=",".join(found.images), error=error)
    else:
        found.state = REPAIRED
        log.warning("damaged layer pulled again", layer=found.layer, images=",".join(found.images))


async def pull_layer(images: Images, name: str) -> None:
    """Fetch a layer from wherever one of its images came from, and put it in the place of the one that is there.

    Raises:
        CriolloError: no image says where it is from, or none of the registries gave it; the first one's words.
    """
    failures: list[CriolloError] = []
    with leased(images, [name]):
        async with images.layer_locks.hold(name):
            for reference, blob in _sources(images, name):
                try:
                    return await _pull_from(images, reference, blob)
                except CriolloError as error:
                    failures.append(error)
    if failures:
        raise failures[0]
    raise Invalid("image", name, "an image that came from a registry; this one was loaded from an archive: load it again")


def _sources(images: Images, name: str) -> Iterator[tuple[Reference, Blob]]:
    """Where a layer can be had: the repositories of its images, each with the blob that the image's manifest names."""
    for image in images.rows.all():
        if name in image.layers and image.digests:
            blob = _blob(image, name)
            for repository in dict.fromkeys(Reference.parse(text).name for text in image.digests):
                yield Reference.parse(f"{repository}@{image.manifest_digest}"), blob


def _blob(image: Image, name: str) -> Blob:
    manifest = decode_manifest(image.manifest, artifacts=True)
    if not isinstance(manifest, Manifest):
        raise Invalid("image", label(image), "an image with a manifest; remove it and pull it again")
    blobs = plan_blobs(manifest) if image.is_artifact else plan(manifest, image.config)
    return blobs[image.layers.index(name)]


async def _pull_from(images: Images, reference: Reference, blob: Blob) -> None:
    route = Route()

    async def feed(pipe_fd: int) -> None:
        await images.registry.blob(reference, blob.descriptor, pipe_fd, None, route=route)

    failures = images.flush.failures
    async with images.unpacks.hold(reference.domain):
        while True:
            try:
                staging, unpacked = await stage_layer(images, blob, feed)
            except Damaged:
                if not route.leave_out_mirrors_of(blob.descriptor):
                    raise
            else:
                break
    try:
        await images.layers.inherit(staging.path, unpacked.implied, blob.below)
        await images.flush.now()  # what a failure casts doubt on is more than this layer
        if images.flush.failures != failures:
            raise HostFailed(f"cannot replace layer {blob.name}: the disk failed while it was written; look at the disk")
        await threads.files(_replace, images, staging, blob.name)
    except BaseException:
        await cleanup(_drop(images, staging), what=f"staging of layer {blob.name}")
        raise
    await _drop(images, staging)
    images.rows.add_layer(LayerRow(blob.name, unpacked.diff_id, unpacked.size_bytes, unpacked.inodes))
    images.finished.pop(blob.name, None)


def _replace(images: Images, staging: Staging, name: str) -> None:
    seals.keep(images.layers, staging, name)
    images.layers.before_removal(name)  # what a driver has made of the old tree; again below, if it was made anew meanwhile
    retired.exchange(images, staging, name)
    images.layers.before_removal(name)


async def _drop(images: Images, staging: Staging) -> None:
    await threads.files(seals.drop, staging)
    await images.layers.discard(staging)


def _forget_images(images: Images, report: Report) -> None:
    """Remove the images that cannot be mended and that no container needs."""
    hopeless = {name for found in report.damaged if found.state != REPAIRED for name in found.images}
    for image in images.rows.all():
        broken = next((each for each in report.broken if each.image == label(image)), None)
        if (broken is None and label(image) not in hopeless) or images.in_use(image.id):
            continue
        images.rows.remove(image.id)
        log.warning("damaged image removed, pull it again", image=image.id, names=",".join(image.names))
        if broken is not None:
            broken.removed = True


def _height(images: Images, name: str) -> int:
    """How many layers are below one: those are mended first, since directories take after them."""
    return max((image.layers.index(name) for image in images.rows.all() if name in image.layers), default=0)
