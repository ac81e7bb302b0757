"""Root filesystems of containers: a writable layer each, and the mount that a container sees.

    <root>/rootfs/<id>/diff      what the container wrote (overlay), or all it has (vfs, btrfs)
    <root>/rootfs/<id>/work      overlay's own
    <root>/rootfs/<id>/brought   how much of `diff` came from the image, where that is something
    <root>/rootfs/<id>/merged    the mount point
    <root>/rootfs/<id>/volumes   images and artifacts that it mounts (storage.volumes)

    <root>/driver                what made these

Everything is named by the container's id, so teardown needs nothing else. `remove` takes any half-made state.
"""

import asyncio
import errno
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Exhausted, Invalid, Unsupported, explain
from criollo.linux import files, mount, tree
from criollo.storage import volumes
from criollo.storage.base import LayerDriver, Limit, Mapped, Usage, Writable
from criollo.storage.layers import Layers
from criollo.storage.mapped import open_way
from criollo.storage.trees import forget_all
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_BUSY_WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
_MAX_STACKED: Final = 10
_MARKER: Final = "driver"
_BROUGHT: Final = "brought"
_MAX_FACT_BYTES: Final = 100


NO_LIMIT: Final = Limit()


class FsUsage(NamedTuple):
    """A place and what is used there: of its whole file system, or only of what is named."""

    mountpoint: str
    used_bytes: int
    inodes_used: int


class RootStore:
    """The root filesystems below `root`, made of `layers` by `driver`; `limit` holds where `create` is given no other."""

    def __init__(self, root: Path, layers: Layers, driver: LayerDriver, *, limit: Limit = NO_LIMIT) -> None:
        self._root, self._layers, self._driver, self.limit = root, layers, driver, limit
        self._directory = root / "rootfs"
        self._trash = layers.trash_of(root)
        self._emptying: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Make the directory, check the driver, begin to empty the trash. After `Layers.open`.

        Raises:
            Unsupported: the driver, or the limit that all writable layers shall have, cannot work here; or another driver's
                writable layers are here.
        """
        with explain(f"open {self._directory}"):
            await threads.files(files.make_directory, self._directory, 0o700, keep=files.PASS)
            await threads.files(self._trash.open)
            await threads.files(self._take_over)
            await threads.files(self._driver.quotas.open, self._directory)
        if self.limit != NO_LIMIT:
            await threads.files(self._driver.quotas.check)
        try:
            await self._driver.check()
        except Exhausted as error:  # who shall make room, if not a daemon that has started?
            log.warning("storage driver not checked", error=error)
        for trash in dict.fromkeys((self._layers.trash, self._trash)):
            self._emptying.append(asyncio.get_running_loop().create_task(trash.run()))  # owned: `close` ends it

    async def close(self) -> None:
        """Stop emptying the trash; what is left is deleted after the next start. Mounts stay: containers use them."""
        if not self._emptying:
            return
        for task in self._emptying:
            task.cancel()
        self._trash.interrupt()
        self._layers.trash.interrupt()
        await asyncio.wait(self._emptying)
        self._emptying = []

    def ids(self) -> set[str]:
        """All containers that have a directory here."""
        with explain(f"list {self._directory}"):
            return {name for name in os.listdir(self._directory) if _NAME.fullmatch(name)}

    def path(self, container_id: str) -> Path:
        """Where the root filesystem of a container is mounted.

        Raises:
            Invalid: no container id.
        """
        return self._place(container_id) / "merged"

    async def create(
        self,
        container_id: str,
        layers: Sequence[str],
        *,
        volatile: bool = True,
        mapped: Mapped | None = None,
        limit: Limit | None = None,
        label: str = "",
    ) -> Path:
        """Make a writable layer over `layers` (bottom first) and mount it; returns the mount point.

        With `mapped` the files have the owners that the user namespace maps theirs to, new ones lie on the disk with those,
        and its users may pass the directories from the store's root down (0711). A leftover of the same id is removed
        first. On an error nothing is left. All files get the SELinux `label`, where one is given.

        Raises:
            Unsupported: too many layers for the driver, or a kernel or file system without mapped ids or limits.
            Exhausted: the disk is full.
        """
        place, limit = self._place(container_id), self.limit if limit is None else limit
        for name in layers:
            self._layers.path(name)
        if place.exists():
            await self.remove(container_id)
        try:
            writable = Writable(place / "diff", place / "work", volatile)
            with explain(f"make the writable layer of container {container_id}"):
                ground = functools.partial(self._make_place, place, mapped, limit)
                brought = await self._driver.fill(layers, writable, ground, mapped=mapped)
            if limit != NO_LIMIT or brought != Usage(0, 0):
                with explain(f"limit the writable layer of container {container_id}"):
                    await threads.files(self._settle, place, limit, brought)
            await self._driver.mount(layers, place / "merged", writable, mapped=mapped, label=label)
        except BaseException:
            await cleanup(self.remove(container_id), what=f"remove the writable layer of container {container_id}")
            raise
        return place / "merged"

    async def mount_volume(
        self,
        container_id: str,
        number: int,
        layers: Sequence[str],
        *,
        sub_path: str = "",
        mapped: Mapped | None = None,
        label: str = "",
    ) -> Path:
        """Mount `layers` (bottom first) read-only as a volume of a container whose root filesystem is made; returns where.

        Raises:
            NotFound, Invalid: the sub path is not there, or nothing that can be mounted.
            Unsupported: too many layers for the driver, or a kernel or file system without mapped ids.
        """
        place = self._place(container_id) / volumes.DIRECTORY / str(number)
        with explain(f"mount volume {number} of container {container_id}"):
            tree_path = await threads.files(volumes.make, place)
            await self._driver.mount(layers, tree_path, None, mapped=mapped, label=label)
            return await threads.mounts(volumes.part, place, sub_path) if sub_path else tree_path

    async def show_files(self, container_id: str, number: int, sources: Sequence[Path], *, label: str = "") -> list[Path]:
        """Show files as a volume of a container whose root filesystem is made; returns where, in their order.

        Whoever binds them must do it read-only. They have the SELinux `label`, where one is given.
        """
        with explain(f"mount volume {number} of container {container_id}"):
            place = self._place(container_id) / volumes.DIRECTORY / str(number)
            return await threads.mounts(volumes.show_files, place, sources, label=label)

    async def unmount(self, container_id: str) -> None:
        """Unmount a root filesystem. Not mounted, or not there, is success; one in use is detached after a second.

        Raises:
            HostFailed: the kernel refused.
        """
        merged = self.path(container_id)
        with explain(f"unmount the root filesystem of container {container_id}"):
            for _ in range(_MAX_STACKED):
                if not await self._unmount_one(merged):
                    return

    async def _unmount_one(self, merged: Path) -> bool:
        for wait_s in _BUSY_WAITS_S:
            try:
                return await threads.mounts(mount.unmount, merged)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            await asyncio.sleep(wait_s)
        log.warning("root filesystem is in use; detaching it", path=merged)
        return await threads.mounts(mount.unmount, merged, detach=True)

    async def remove(self, container_id: str) -> None:
        """Unmount and remove a root filesystem; the files are deleted in the background. Absence is success.

        Raises:
            HostFailed: it cannot be unmounted or moved away.
        """
        await self.unmount(container_id)
        with explain(f"remove the writable layer of container {container_id}"):
            if (shown := self._place(container_id) / volumes.DIRECTORY).exists():
                await threads.mounts(volumes.unmount_all, shown)
            await threads.files(self._put_away, self._place(container_id))
        self._trash.wake()

    async def usage(self, container_id: str) -> Usage:
        """What the writable layer takes on the disk; zero when there is none. Quick where quotas count it, else a walk."""
        with explain(f"measure the writable layer of container {container_id}"):
            return await threads.files(self._measure, self._place(container_id))

    def measure(self, container_id: str) -> Usage:
        """`usage`, blocking; an OSError is the caller's."""
        return self._measure(self._place(container_id))

    @property
    def mountpoint(self) -> str:
        """What names the file system of the writable layers."""
        return str(self._root)

    async def fs_usage(self) -> FsUsage:
        """How full the file system of the store is."""
        with explain(f"measure the file system of {self._root}"):
            status = await threads.files(os.statvfs, self._root)
        used_bytes = (status.f_blocks - status.f_bfree) * status.f_frsize
        return FsUsage(str(self._root), used_bytes, status.f_files - status.f_ffree)

    def _take_over(self) -> None:
        """See that what is here was made by this driver; a store without writable layers may change hands.

        Raises:
            Unsupported: it was not.
        """
        marker = self._root / _MARKER
        try:
            before = files.read_limited(marker, _MAX_FACT_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            before = "overlay"  # alone at first, and without a marker
        if before == self._driver.name and marker.exists():
            return
        if before != self._driver.name:
            if left := len(self.ids()):
                raise Unsupported(
                    f"cannot use storage driver {self._driver.name} in {self._root}: it has {left} writable layers of driver "
                    f"{before}; set storage_driver to {before} and remove all pods, or choose another root"
                )
            forget_all(self._root, self._trash)
        files.write_atomic(marker, f"{self._driver.name}\n".encode(), durable=True)

    def _make_place(self, place: Path, mapped: Mapped | None, limit: Limit) -> None:
        place.mkdir(mode=0o700)
        if limit != NO_LIMIT:
            self._driver.quotas.begin(place)
        (place / "merged").mkdir(mode=0o700)
        if mapped is not None:
            place.chmod(0o711)
            open_way(self._root, self._directory)

    def _settle(self, place: Path, limit: Limit, brought: Usage) -> None:
        if limit != NO_LIMIT:
            brought = self._driver.quotas.bound(place, limit, brought)
        if brought != Usage(0, 0):
            files.write_atomic(place / _BROUGHT, f"{brought.bytes} {brought.inodes}\n".encode())

    def _measure(self, place: Path) -> Usage:
        brought = _brought(place)
        try:
            return self._driver.quotas.usage(place, brought) or _walk(place / "diff", brought)
        except FileNotFoundError:
            return Usage(0, 0)

    def _put_away(self, place: Path) -> None:
        self._driver.quotas.release(place)
        self._trash.put(place)

    def _place(self, container_id: str) -> Path:
        if not _NAME.fullmatch(container_id):
            raise Invalid("container_id", container_id, "64 lower-case hex digits")
        return self._directory / container_id


def _brought(place: Path) -> Usage:
    """What `brought` says; nothing when it is not there, or damaged."""
    try:
        words = files.read_limited(place / _BROUGHT, _MAX_FACT_BYTES).split()
        return Usage(int(words[0]), int(words[1]))
    except (OSError, Invalid, ValueError, IndexError):
        return Usage(0, 0)


def _walk(directory: Path, brought: Usage) -> Usage:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Usage(0, 0)
    try:
        found = tree.usage(fd)
    finally:
        os.close(fd)
    return Usage(max(0, found.bytes - brought.bytes), max(0, found.inodes - brought.inodes))
