"""What a storage driver must do: make one tree out of layers. `storage.overlay` is the first."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from criollo.model.pod import IdMapping, host_id


class Writable(NamedTuple):
    """Where a container's writes go. `work` is the driver's own, empty, on the same file system as `upper`."""

    upper: Path
    work: Path
    volatile: bool  # writes may be lost when the host dies, which spares flushing them at unmount


class Mapped(NamedTuple):
    """The user namespace that a root filesystem is for: the file it is pinned at, and its mappings."""

    user_ns: Path
    uids: Sequence[IdMapping]
    gids: Sequence[IdMapping]

    def owner(self, uid: int = 0, gid: int = 0) -> tuple[int, int]:
        """The host's ids of an owner inside; those of the namespace's root for ids that it does not have."""
        return host_id(self.uids, uid), host_id(self.gids, gid)


class LayerDriver(Protocol):
    """Mounts layers of `storage.layers`, named bottom first."""

    async def check(self) -> None:
        """Try a mount of each kind once, at start.

        Raises:
            Unsupported: this place cannot hold a store; the message says what to do.
        """
        ...

    async def mount(
        self, layers: Sequence[str], target: Path, writable: Writable | None, *, mapped: Mapped | None = None
    ) -> None:
        """Mount the layers at `target`, read-only unless `writable`; with `mapped` all files have the owners inside.

        Raises:
            Unsupported: more layers than the driver takes, or mapped ones where that cannot be.
            CriolloError: the kernel refused.
        """
        ...
