"""How much a container may write: annotations, where its handler allows them, before what is configured.

    storage-size.crio.io[/CONTAINER]       of the pod or the container: a size such as 10GiB, 0 for no limit
    storage-inodes.crio.io[/CONTAINER]     a number of files

The container's own words count most, then the pod's for this container, the pod's for all, `default_annotations` of the
handler, and `storage_option` of the node.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from criollo.model.container import ContainerConfig
from criollo.model.pod import PodConfig
from criollo.specgen.annotations import permitted
from criollo.specgen.request import Defaults
from criollo.storage.base import Limit
from criollo.storage.options import parse_count, parse_size

SIZE: Final = "storage-size.crio.io"
INODES: Final = "storage-inodes.crio.io"


def limit_of(config: ContainerConfig, pod: PodConfig, defaults: Defaults, *, otherwise: Limit) -> Limit:
    """The limit of a container's writable layer; `otherwise` where nothing else is said.

    Raises:
        Invalid: an annotation is no size or number.
    """
    allowed = defaults.allowed_annotations
    own, above = permitted(config.annotations, allowed), permitted(pod.annotations, allowed)
    sources = (own, above, defaults.annotations)
    size, inodes = (_find(name, config.name, sources) for name in (SIZE, INODES))
    return Limit(
        otherwise.bytes if size is None else parse_size(size, f"annotation {SIZE}"),
        otherwise.inodes if inodes is None else parse_count(inodes, f"annotation {INODES}"),
    )


def _find(name: str, container: str, sources: Sequence[Mapping[str, str]]) -> str | None:
    for source in sources:
        for key in (f"{name}/{container}", name):
            if key in source:
                return source[key]
    return None
