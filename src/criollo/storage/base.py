"""What a storage driver must do: make one tree out of layers. `engine.DRIVERS` names those there are.

overlay     mounts the layers below a writable layer
btrfs       a subvolume per image, a snapshot of it per container
vfs         a copy of the image's tree per container; for file systems that can nothing else
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from criollo.model.pod import IdMapping, host_id


class Writable(NamedTuple):
    """Where a container's writes go. `work` is the driver's own, empty, on the same file system as `upper`."""

    upper: Path
    work: Path
    volatile: bool  # writes may be lost when the host dies, which spares flushing them at unmount


class Usage(NamedTuple):
    """What a writable layer takes on the disk. A driver that has no number of inodes says 0."""

    bytes: int
    inodes: int


class Limit(NamedTuple):
    """What a writable layer may take, beside what its image brings; 0: no limit."""

    bytes: int = 0
    inodes: int = 0


class Mapped(NamedTuple):
    """The user namespace that a root filesystem is for: the file it is pinned at, and its mappings."""

    user_ns: Path
    uids: Sequence[IdMapping]
    gids: Sequence[IdMapping]

    def owner(self, uid: int = 0, gid: int = 0) -> tuple[int, int]:
        """The host's ids of an owner inside; those of the namespace's root for ids that it does not have."""
        return host_id(self.uids, uid), host_id(self.gids, gid)


class Quotas(Protocol):
    """Counts and bounds the writable layer at `place`, the directory `<root>/rootfs/<id>`. All methods block.

    What a daemon that died has left is found by the place alone.
    """

    def open(self, directory: Path) -> None:
        """Find out what is in use below `<root>/rootfs`; once, at start."""
        ...

    def check(self) -> None:
        """Try whether limits can be set.

        Raises:
            Unsupported: not on this file system; the message says what to do.
        """
        ...

    def begin(self, place: Path) -> None:
        """Count what will be made in a fresh place.

        Raises:
            Unsupported: as `check`.
        """
        ...

    def bound(self, place: Path, limit: Limit, brought: Usage) -> Usage:
        """Let the writable layer, which has `brought` from its image, grow by the limit and no more.

        Returns what it has now as this counts it, for `usage`.
        """
        ...

    def usage(self, place: Path, brought: Usage) -> Usage | None:
        """What was written since; None where nobody counts."""
        ...

    def release(self, place: Path) -> None:
        """Forget the limits of a place that goes to the trash; never one that stays."""
        ...


class LayerDriver(Protocol):
    """Makes root filesystems of layers of `storage.layers`, named bottom first."""

    name: str
    quotas: Quotas

    async def check(self) -> None:
        """Try once, at start, whether all this works here.

        Raises:
            Unsupported: this place cannot hold a store; the message says what to do.
        """
        ...

    async def fill(
        self, layers: Sequence[str], writable: Writable, ground: Callable[[], None], *, mapped: Mapped | None = None
    ) -> Usage:
        """Make a fresh writable layer: neither `upper` nor `work` is there yet. Returns what it has from the image.

        `ground` makes the directory for them: to be called first, in a thread, with whatever else is done there.
        After an error the place is removed by the caller, whatever is there.

        Raises:
            Exhausted: the disk is full.
        """
        ...

    async def mount(
        self,
        layers: Sequence[str],
        target: Path,
        writable: Writable | None,
        *,
        mapped: Mapped | None = None,
        label: str = "",
    ) -> None:
        """Mount the layers at `target`, read-only unless `writable`; with `mapped` all files have the owners inside.

        All files get the SELinux `label`; only overlay can that, the others are never given one.

        Raises:
            Unsupported: more layers than the driver takes, or mapped ones where that cannot be.
            CriolloError: the kernel refused.
        """
        ...
