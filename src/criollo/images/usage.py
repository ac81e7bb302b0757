"""What images and writable layers take on the disk, and what nobody needs."""

from collections import Counter

from criollo.aio.together import together
from criollo.images.context import Images
from criollo.images.status import is_pinned
from criollo.model.image import Image
from criollo.model.store import ContainerUsage, DiskUsage, ImageUsage, LayerUsage


async def disk_usage(images: Images) -> DiskUsage:
    """Layers by their rows, writable layers by a walk of their directories.

    Raises:
        HostFailed: a directory cannot be read.
    """
    containers = await _containers(images)
    unused = unused_layers(images)
    rows = images.rows.layers()
    known = {row.name for row in rows}
    users = Counter(layer for image in images.rows.all() for layer in image.layers)
    listed = [_image(images, image, users) for image in images.rows.all()]
    return DiskUsage(
        images=sorted(listed, key=lambda each: (-each.size_bytes, each.id)),
        containers=sorted(containers, key=lambda each: (-each.writable_bytes, each.id)),
        unused_layers=unused,
        layers_bytes=sum(row.size_bytes for row in rows) + sum(each.size_bytes for each in unused if each.layer not in known),
        containers_bytes=sum(each.writable_bytes for each in containers),
        unused_bytes=sum(each.size_bytes for each in unused),
    )


def unused_layers(images: Images) -> list[LayerUsage]:
    """Layers that no image has: left over, of a pull that was cut and may go on, or in work right now."""
    found = {name: row for name in images.rows.unreferenced_layers() if (row := images.rows.layer(name)) is not None}
    found |= {name: each.row for name, each in images.finished.items()}
    return [
        LayerUsage(
            layer=name,
            size_bytes=row.size_bytes,
            inodes=row.inodes,
            why="in work" if images.leases[name] else "cut pull" if name in images.finished else "left over",
        )
        for name, row in sorted(found.items())
    ]


def _image(images: Images, image: Image, users: Counter[str]) -> ImageUsage:
    rows = [row for name in image.layers if (row := images.rows.layer(name)) is not None]
    total = sum(row.size_bytes for row in rows)
    shared = sum(row.size_bytes for row in rows if users[row.name] > 1)
    return ImageUsage(
        id=image.id,
        names=list(image.names),
        digests=list(image.digests),
        size_bytes=total,
        shared_bytes=shared,
        unique_bytes=total - shared,
        layers=len(image.layers),
        containers=len(images.in_use(image.id)),
        pinned=is_pinned(images, image),
    )


async def _containers(images: Images) -> list[ContainerUsage]:
    image_of = {user: image.id for image in images.rows.all() for user in images.in_use(image.id)}

    async def measure(container_id: str) -> ContainerUsage:
        usage = await images.roots.usage(container_id)
        return ContainerUsage(
            id=container_id, image_id=image_of.get(container_id, ""), writable_bytes=usage.bytes, inodes=usage.inodes
        )

    return await together(measure(container_id) for container_id in sorted(images.roots.ids()))
