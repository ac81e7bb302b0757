"""The btrfs driver: an image's tree is a subvolume, a container's root filesystem a snapshot of it.

    <root>/trees/<topmost layer>/tree    the image's files, the large ones sharing blocks with the layers
    <root>/rootfs/<id>/diff              the snapshot, whatever its size made and deleted at once

Limits and usage come from quota groups (`storage.groups`) where there are some. Else usage is found by a walk over the whole
root filesystem, less what the image brought.

Source: btrfs-subvolume(8); linux/btrfs.h.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from criollo.aio import threads
from criollo.errors import Unsupported, explain
from criollo.linux import btrfs, mount
from criollo.linux.files import opened_directory
from criollo.storage.base import Mapped, Quotas, Usage, Writable
from criollo.storage.groups import Groups
from criollo.storage.layers import Layers
from criollo.storage.shown import show
from criollo.storage.trees import Trees
from criollo.workers.pool import Workers


class Btrfs:
    """Snapshots trees; see the module."""

    name = "btrfs"

    def __init__(self, layers: Layers, workers: Workers, root: Path) -> None:
        self.quotas: Quotas = Groups()
        self._root = root
        self._trees = Trees(layers, workers, root, link=False, make=_make)

    async def check(self) -> None:
        """Make a subvolume, snapshot it, destroy both.

        Raises:
            Unsupported: this is no btrfs, or we may not.
        """
        await threads.files(self._check_file_system)
        await self._trees.open()
        await threads.files(self._try)

    async def fill(
        self, layers: Sequence[str], writable: Writable, ground: Callable[[], None], *, mapped: Mapped | None = None
    ) -> Usage:
        """Snapshot the image's tree as `upper`. Owners stay; a user namespace gets them mapped at `mount`."""
        tree, brought = await self._trees.get(layers)
        with explain(f"snapshot {tree}"):
            await threads.files(_snapshot, tree, writable.upper, ground)
        return brought

    async def mount(
        self,
        layers: Sequence[str],
        target: Path,
        writable: Writable | None,
        *,
        mapped: Mapped | None = None,
        label: str = "",
    ) -> None:
        """Show the snapshot at `target`, or without `writable` the image's tree, read-only."""
        tree = writable.upper if writable is not None else (await self._trees.get(layers))[0]
        await threads.mounts(show, tree, target, mapped=mapped, readonly=writable is None)

    def _check_file_system(self) -> None:
        with opened_directory(self._root) as fd:
            if btrfs.is_btrfs(fd):
                return
        fstype = mount.fstype_of(os.path.realpath(self._root)) or "something else"
        raise Unsupported(
            f"cannot keep root filesystems in {self._root} with the btrfs driver: it is on {fstype}; set storage_driver to "
            "overlay, or root to a directory on btrfs"
        )

    def _try(self) -> None:
        place = self._root / "trees" / f".{secrets.token_hex(16)}"
        try:
            place.mkdir()
            _make(place / "tree")
            _snapshot(place / "tree", place / "diff")
            with opened_directory(place) as fd:
                for name in ("diff", "tree"):
                    btrfs.destroy(fd, name)
        except OSError as error:
            raise Unsupported(
                f"cannot keep root filesystems in {self._root}: a trial subvolume failed: {error.strerror}; the btrfs driver "
                "needs CAP_SYS_ADMIN and a btrfs that is mounted read-write"
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _make(path: Path) -> None:
    with opened_directory(path.parent) as parent:
        btrfs.create(parent, path.name)


def _snapshot(source: Path, target: Path, ground: Callable[[], None] = lambda: None) -> None:
    ground()
    with opened_directory(source) as tree, opened_directory(target.parent) as parent:
        btrfs.snapshot(tree, parent, target.name)
