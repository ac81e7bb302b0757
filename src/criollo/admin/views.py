"""Values of the domain as the JSON that other tools expect. Pure functions.

Names of the fields are those of CRI-O's inspect endpoints, which cAdvisor and node scripts read.
"""

import msgspec


class IdRange(msgspec.Struct, frozen=True, kw_only=True):
    container_id: int
    host_id: int
    size: int


class IdMappings(msgspec.Struct, frozen=True, kw_only=True):
    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]


class NodeDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What `/info` says. `storage_image` is the separate image store, empty where there is none."""

    storage_driver: str
    storage_image: str
    storage_root: str
    cgroup_driver: str
    default_id_mappings: IdMappings


_ALL = (IdRange(container_id=0, host_id=0, size=4294967295),)
HOST_IDS = IdMappings(uids=_ALL, gids=_ALL)
"""Containers use the ids of the host."""


def node_json(node: NodeDescription) -> bytes:
    """Compact JSON of `/info`."""
    return msgspec.json.encode(node)
