"""Take away what nobody needs: images without a tag, or all that no container uses, and layers that no image has."""

import time

from criollo.images.collect import KEPT_S, collect_layers
from criollo.images.context import Images
from criollo.images.history import label
from criollo.images.status import is_pinned
from criollo.images.usage import unused_layers
from criollo.model.image import Image
from criollo.model.store import LayerUsage, Pruned, PrunedImage
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def prune_images(images: Images, *, all_unused: bool = False, dry_run: bool = False) -> Pruned:
    """Remove images without a tag, with `all_unused` those with one too, unless pinned, in use or in work; then the layers
    that no image has.

    Layers of a cut pull stay for the next try while they are fresh; with `all_unused` they go. With `dry_run` nothing goes.

    Raises:
        HostFailed: a layer cannot be moved away.
    """
    going, kept = _choose(images, all_unused=all_unused)
    free = {each.layer: each for each in _free_without(images, going)}
    if dry_run:
        ripe = time.monotonic() - (0 if all_unused else KEPT_S)
        young = {name for name, each in images.finished.items() if each.at > ripe}
        return _told(going, [each for name, each in free.items() if name not in young], kept, dry_run=True)
    for image in going:  # no other task comes between the choice and this
        images.rows.remove(image.id)
        log.info("image pruned", image=image.id, names=",".join(image.names))
    dropped = await collect_layers(images, kept_s=0 if all_unused else KEPT_S)
    return _told(going, [free[name] for name in dropped if name in free], kept, dry_run=False)


def _choose(images: Images, *, all_unused: bool) -> tuple[list[Image], dict[str, str]]:
    """The images that may go, and of the others that one might expect to go why they stay."""
    going, kept = [], {}
    for image in images.rows.all():
        if image.names and not all_unused:
            continue
        users = images.in_use(image.id)
        if users:
            kept[label(image)] = f"used by {len(users)} container{'s' if len(users) > 1 else ''}"
        elif is_pinned(images, image):
            kept[label(image)] = "pinned"
        elif any(images.leases[layer] for layer in image.layers):
            kept[label(image)] = "in work"
        else:
            going.append(image)
    return going, kept


def _free_without(images: Images, going: list[Image]) -> list[LayerUsage]:
    """The layers that nobody has any more when these images are gone."""
    ids = {image.id for image in going}
    needed = {layer for image in images.rows.all() if image.id not in ids for layer in image.layers}
    found = [each for each in unused_layers(images) if each.why != "in work"]
    for name in {layer for image in going for layer in image.layers} - needed:
        row = images.rows.layer(name)
        if row is not None and not images.leases[name]:
            found.append(LayerUsage(layer=name, size_bytes=row.size_bytes, inodes=row.inodes, why="image"))
    return found


def _told(going: list[Image], layers: list[LayerUsage], kept: dict[str, str], *, dry_run: bool) -> Pruned:
    return Pruned(
        dry_run=dry_run,
        images=[PrunedImage(id=each.id, names=list(each.names), digests=list(each.digests)) for each in going],
        layers=sorted(layers, key=lambda each: each.layer),
        freed_bytes=sum(each.size_bytes for each in layers),
        freed_inodes=sum(each.inodes for each in layers),
        kept=kept,
    )
