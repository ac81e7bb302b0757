"""What the image store tells of itself: steps of an image's making, layers and who shares them, bytes, what was taken away.

The HTTP face sends these as JSON and kpod reads them; names stay. Sizes are of layers as unpacked.
"""

import msgspec


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an image's making. `layer` is empty when the step changed the config alone."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty: bool = False
    layer: str = ""
    diff_id: str = ""
    size_bytes: int = 0


class TreeLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer in its place. `digest` is the blob's, as it travelled; `shared_with` names the other images that have it."""

    layer: str
    diff_id: str = ""
    digest: str = ""
    created_by: str = ""
    size_bytes: int = 0
    inodes: int = 0
    shared_with: list[str] = []


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of an image, bottom first, and what would be free without it."""

    id: str
    names: list[str] = []
    size_bytes: int = 0
    shared_bytes: int = 0
    unique_bytes: int = 0
    layers: list[TreeLayer] = []


class ImageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What an image takes: `shared_bytes` are of layers that other images have too."""

    id: str
    names: list[str] = []
    digests: list[str] = []
    size_bytes: int = 0
    shared_bytes: int = 0
    unique_bytes: int = 0
    layers: int = 0
    containers: int = 0
    pinned: bool = False


class ContainerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A writable layer, measured on the disk; `image_id` is empty when no container of that id is known."""

    id: str
    image_id: str = ""
    writable_bytes: int = 0
    inodes: int = 0


class LayerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that no image has; `why` is `left over`, `cut pull`, `in work`, or `image`: that of one that went."""

    layer: str
    size_bytes: int = 0
    inodes: int = 0
    why: str = ""


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `layers_bytes` counts each layer once."""

    images: list[ImageUsage] = []
    containers: list[ContainerUsage] = []
    unused_layers: list[LayerUsage] = []
    layers_bytes: int = 0
    containers_bytes: int = 0
    unused_bytes: int = 0


class PrunedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that went, or would go."""

    id: str
    names: list[str] = []
    digests: list[str] = []


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken away, or with `dry_run` would be; `kept` says why others stay."""

    dry_run: bool = False
    images: list[PrunedImage] = []
    layers: list[LayerUsage] = []
    freed_bytes: int = 0
    freed_inodes: int = 0
    kept: dict[str, str] = {}
