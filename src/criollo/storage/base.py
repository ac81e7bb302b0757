"""What a storage driver must do: make one tree out of layers. `storage.overlay` is the first."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class Writable(NamedTuple):
    """Where a container's writes go. `work` is the driver's own, empty, on the same file system as `upper`."""

    upper: Path
    work: Path
    volatile: bool  # writes may be lost when the host dies, which spares flushing them at unmount


class LayerDriver(Protocol):
    """Mounts layers of `storage.layers`, named bottom first."""

    async def check(self) -> None:
        """Try a mount of each kind once, at start.

        Raises:
            Unsupported: this place cannot hold a store; the message says what to do.
        """
        ...

    async def mount(self, layers: Sequence[str], target: Path, writable: Writable | None) -> None:
        """Mount the layers at `target`, read-only unless `writable`.

        Raises:
            Unsupported: more layers than the driver takes.
            CriolloError: the kernel refused.
        """
        ...
