"""Owners of files as a container's user namespace has them, and as the host has them."""

from collections.abc import Sequence
from typing import Final

import msgspec

NOBODY: Final = 65534  # what the kernel shows for an id that is not mapped

Range = tuple[int, int, int]
"""Id inside, id on the host, how many."""


class Ids(msgspec.Struct, frozen=True, kw_only=True):
    """Mappings of a user namespace; without ranges the ids of the host."""

    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()

    @property
    def are_mapped(self) -> bool:
        return bool(self.uids or self.gids)

    @property
    def root(self) -> tuple[int, int]:
        """The host's ids of the root inside."""
        return self.host_uid(0), self.host_gid(0)

    def inside_uid(self, host: int) -> int:
        return _inside(self.uids, host)

    def inside_gid(self, host: int) -> int:
        return _inside(self.gids, host)

    def host_uid(self, inside: int) -> int:
        """The host's id; that of the root inside for one that is not mapped."""
        return _host(self.uids, inside)

    def host_gid(self, inside: int) -> int:
        """As `host_uid`."""
        return _host(self.gids, inside)


def _inside(ranges: Sequence[Range], host: int) -> int:
    if not ranges:
        return host
    return next((first + host - there for first, there, length in ranges if there <= host < there + length), NOBODY)


def _host(ranges: Sequence[Range], inside: int) -> int:
    if not ranges:
        return inside
    found = next((there + inside - first for first, there, length in ranges if first <= inside < first + length), None)
    if found is not None:
        return found
    return _host(ranges, 0) if inside else ranges[0][1]
