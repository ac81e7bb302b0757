"""Take images over from containerd on this node, without a registry: `kpod load --from-containerd`.

Layers go the way of every archive: digests checked, unpacked by workers, never linked to what containerd may delete.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.errors import CriolloError, Exhausted, HostFailed, Invalid, NotFound
from criollo.images import containerd
from criollo.images.containerd import Listed, Stored
from criollo.images.context import Images
from criollo.images.layout import NamedImage
from criollo.images.load import load_found
from criollo.images.resolve import meanings
from criollo.oci.reference import Reference
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class Adopted(NamedTuple):
    """The images that were taken over, and why others were not, by their first name."""

    images: list[NamedImage]
    failed: dict[str, str]


async def list_adoptable(root: Path, namespaces: Sequence[str]) -> list[Listed]:
    """What containerd has. Raises as `containerd.read_images`."""
    return await threads.files(containerd.list_images, root, namespaces)


async def adopt_images(images: Images, root: Path, namespaces: Sequence[str], *, names: Sequence[str] = ()) -> Adopted:
    """Take over the images of these names, or all when there are none; one that cannot be does not stop the others.

    Raises:
        NotFound: containerd, or an image of a given name, is not here.
        Exhausted, HostFailed: the disk is full, or the kernel refuses.
    """
    stored = await threads.files(containerd.read_images, root, namespaces)
    chosen = _chosen(images, stored, names) if names else stored
    content = await threads.descriptor(lambda: containerd.open_content(root))
    adopted: dict[str, NamedImage] = {}
    failed: dict[str, str] = {}
    try:
        for each in chosen:
            try:
                found = await threads.files(containerd.find_content, content, each)
                image = await load_found(images, content, found)
            except (Exhausted, HostFailed):
                raise
            except CriolloError as error:
                failed[_label(each)] = str(error)
                log.warning("image of containerd cannot be taken over", image=_label(each), error=error)
                continue
            earlier = adopted[image.id].names if image.id in adopted else ()
            adopted[image.id] = NamedImage(image, tuple(dict.fromkeys((*earlier, *found.names))))
    finally:
        os.close(content)
    return Adopted(list(adopted.values()), failed)


def _chosen(images: Images, stored: Sequence[Stored], names: Sequence[str]) -> list[Stored]:
    """The images of these names, each with the names that were asked for."""
    chosen: dict[tuple[str, str], Stored] = {}
    for text in names:
        wanted = {str(ref) for ref in meanings(images, text)}
        found = [(each, ref) for each in stored for ref in each.names if str(ref) in wanted]
        if not found:
            raise NotFound("image", text, "kpod load --from-containerd --list shows what containerd has")
        for each, ref in found[:1]:
            key = (each.namespace, each.target.digest)
            before: tuple[Reference, ...] = chosen[key].names if key in chosen else ()
            chosen[key] = each._replace(names=tuple(dict.fromkeys((*before, ref))))
    return list(chosen.values())


def _label(stored: Stored) -> str:
    return str(stored.names[0]) if stored.names else str(stored.target.digest)


def checked_root(text: str) -> Path:
    """A root of containerd as a client writes it; nothing means the usual one.

    Raises:
        Invalid: no absolute path.
    """
    if not text:
        return containerd.ROOT
    if not text.startswith("/") or "\0" in text:
        raise Invalid("root", text, "an absolute path on this node")
    return Path(text)
