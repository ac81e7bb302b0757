"""List and look up images; what they take on the disk."""

import msgspec

from criollo.images.context import Images
from criollo.images.resolve import find
from criollo.model.image import Image
from criollo.oci.image_spec import decode_config
from criollo.storage.rootfs import FsUsage


def list_images(images: Images) -> list[Image]:
    return images.foreign.beside(images.rows.all())


def find_image(images: Images, name: str) -> Image | None:
    """The image a reference, an id or the beginning of an id means; None when it is not here."""
    return find(images, name)


def is_pinned(images: Images, image: Image) -> bool:
    """Whether the preload directory has it, or a rule of `pinned_images` one of its names: exact, `prefix*` or `*word*`."""
    if image.pinned or image.id in images.preloaded:
        return True
    return any(_matches(rule, name) for rule in images.pinned for name in (*image.names, *image.digests))


async def fs_usage(images: Images) -> FsUsage:
    """Bytes and inodes of all layers, from their rows: no walk over the disk."""
    rows = images.rows.layers()
    return FsUsage(str(images.layers.root), sum(row.size_bytes for row in rows), sum(row.inodes for row in rows))


async def container_usage(images: Images) -> FsUsage:
    """The filesystem of the writable layers: the same one as the images' unless those are kept apart (`imagestore`).

    Then the numbers are of the whole filesystem: writable layers are not walked for a question that kubelet repeats.
    """
    where = await images.roots.fs_usage()
    return await fs_usage(images) if where.mountpoint == str(images.layers.root) else where


def verbose(images: Images, image: Image) -> dict[str, str]:
    """What `ImageStatus` adds when asked to be verbose: the image's own config as `info.imageSpec`."""
    if image.is_artifact:
        document: dict[str, object] = {"manifest": msgspec.Raw(image.manifest)}
        return {"info": msgspec.json.encode(document).decode()}
    config = decode_config(image.config)
    document = {"labels": config.config.labels, "imageSpec": msgspec.Raw(image.config)}
    if image.store:
        document["store"] = image.store
    return {"info": msgspec.json.encode(document).decode()}


def _matches(rule: str, name: str) -> bool:
    if rule.startswith("*") and rule.endswith("*") and len(rule) > 1:
        return rule[1:-1] in name
    if rule.endswith("*"):
        return name.startswith(rule[:-1])
    return rule == name
