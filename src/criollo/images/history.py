"""What an image is made of: the steps of its making, and its layers with those who share them."""

from typing import Any, Final

import msgspec

from criollo.errors import CriolloError
from criollo.images.context import Images
from criollo.model.ids import short
from criollo.model.image import Image
from criollo.model.store import Step, Tree, TreeLayer
from criollo.oci.image_spec import Descriptor, decode_config, decode_manifest

_LONGEST_TEXT: Final = 64 << 10  # of one field: configs are other people's


def history(images: Images, image: Image) -> list[Step]:
    """The steps, the newest first. Histories that do not fit the layers are stretched: no layer is left out."""
    layers = tree(images, image).layers
    steps: list[Step] = []
    for entry in _entries(image.config):
        is_empty = entry.get("empty_layer") is True
        layer = layers.pop(0) if layers and not is_empty else None
        steps.append(
            Step(
                created=_text(entry, "created"),
                created_by=_text(entry, "created_by"),
                comment=_text(entry, "comment"),
                empty=is_empty,
                layer=layer.layer if layer else "",
                diff_id=layer.diff_id if layer else "",
                size_bytes=layer.size_bytes if layer else 0,
            )
        )
    steps += [Step(layer=each.layer, diff_id=each.diff_id, size_bytes=each.size_bytes) for each in layers]
    return steps[::-1]


def tree(images: Images, image: Image) -> Tree:
    """The layers, bottom first. What only this image has would be free without it."""
    made_by = [_text(entry, "created_by") for entry in _entries(image.config) if entry.get("empty_layer") is not True]
    blobs, diff_ids = descriptors(image), _diff_ids(image)
    layers = []
    for at, name in enumerate(image.layers):
        row = images.rows.layer(name)
        layers.append(
            TreeLayer(
                layer=name,
                diff_id=row.diff_id if row else diff_ids[at] if at < len(diff_ids) else "",
                digest=str(blobs[at].digest) if at < len(blobs) else "",
                created_by=made_by[at] if at < len(made_by) else "",
                size_bytes=row.size_bytes if row else 0,
                inodes=row.inodes if row else 0,
                shared_with=[label(each) for each in images.rows.all() if each.id != image.id and name in each.layers],
            )
        )
    shared = sum(each.size_bytes for each in layers if each.shared_with)
    total = sum(each.size_bytes for each in layers)
    return Tree(
        id=image.id,
        names=list(image.names),
        size_bytes=total,
        shared_bytes=shared,
        unique_bytes=total - shared,
        layers=layers,
    )


def label(image: Image) -> str:
    """A name for people: the first one that the image has, else the beginning of its id."""
    return next(iter((*image.names, *image.digests)), short(image.id))


def descriptors(image: Image) -> tuple[Descriptor, ...]:
    """The blobs that the layers came as, bottom first; empty where the manifest cannot say."""
    try:
        manifest = decode_manifest(image.manifest, artifacts=True)
    except CriolloError:
        return ()
    found = getattr(manifest, "layers", ())
    return found if len(found) == len(image.layers) else ()


def _diff_ids(image: Image) -> list[str]:
    try:
        return [str(each) for each in decode_config(image.config).rootfs.diff_ids]
    except CriolloError:
        return []


def _entries(config: bytes) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(config)
    except (msgspec.MsgspecError, RecursionError):
        return []
    found = document.get("history") if isinstance(document, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""
