"""The vfs driver: every container gets a copy of its image's tree. For file systems on which nothing else works.

    <root>/trees/<topmost layer>/tree    the layers' files by hard links: an image takes its layers' place, and names
    <root>/rootfs/<id>/diff              the copy; its files share blocks with the layers where they can (xfs, btrfs)

A container costs the time, and without shared blocks the place, of its whole image. Its usage is what it has beyond the copy.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Unsupported, explain, from_os
from criollo.storage.base import Mapped, Quotas, Usage, Writable
from criollo.storage.layers import Layers
from criollo.storage.projects import Projects
from criollo.storage.shown import show
from criollo.storage.trees import Trees
from criollo.workers.pool import Workers

_CHECKED: Final = "trusted.overlay.criollo"  # whiteouts of layers are told by attributes of this kind


class Vfs:
    """Copies trees; see the module."""

    name = "vfs"

    def __init__(self, layers: Layers, workers: Workers, root: Path) -> None:
        self.quotas: Quotas = Projects()
        self._root = root
        self._trees = Trees(layers, workers, root, link=True)

    async def check(self) -> None:
        """Make a device node and a trusted attribute, as layers need them.

        Raises:
            Unsupported: the file system has none.
        """
        await self._trees.open()
        await threads.files(self._check)

    async def fill(
        self, layers: Sequence[str], writable: Writable, ground: Callable[[], None], *, mapped: Mapped | None = None
    ) -> Usage:
        """Copy the image's tree to `upper`. Owners stay; a user namespace gets them mapped at `mount`."""
        tree, _ = await self._trees.get(layers)
        with explain(f"make {writable.upper}"):
            await threads.files(_make, writable.upper, ground)
        return await self._trees.copy(tree, writable.upper)

    async def mount(
        self,
        layers: Sequence[str],
        target: Path,
        writable: Writable | None,
        *,
        mapped: Mapped | None = None,
        label: str = "",
    ) -> None:
        """Show the copy at `target`, or without `writable` the image's tree, read-only."""
        tree = writable.upper if writable is not None else (await self._trees.get(layers))[0]
        await threads.mounts(show, tree, target, mapped=mapped, readonly=writable is None)

    def _check(self) -> None:
        place = self._root / "trees" / f".{secrets.token_hex(16)}"
        try:
            place.mkdir()
            os.mknod(place / "whiteout", 0o020000 | 0o600, 0)
            os.setxattr(place, _CHECKED, b"y")
        except OSError as error:
            why = from_os(error, "a device node or an attribute cannot be made")
            raise Unsupported(
                f"cannot keep root filesystems in {self._root}: {why}; the vfs driver needs a file system with device nodes "
                "and trusted attributes, mounted without restrictions, such as ext4, xfs, btrfs or tmpfs"
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _make(directory: Path, ground: Callable[[], None]) -> None:
    ground()
    directory.mkdir(mode=0o700)
