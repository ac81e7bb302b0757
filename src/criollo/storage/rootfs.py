"""Root filesystems of containers: a writable layer each, and the mount that a container sees.

    <root>/rootfs/<id>/diff      what the container wrote (the upper directory)
    <root>/rootfs/<id>/work      overlay's own
    <root>/rootfs/<id>/merged    the mount point

Everything is named by the container's id, so teardown needs nothing else. `remove` takes any half-made state.
"""

import asyncio
import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Exhausted, Invalid, explain
from criollo.linux import files, mount, tree
from criollo.storage.base import LayerDriver, Mapped, Writable
from criollo.storage.layers import EMPTY, Layers
from criollo.storage.mapped import open_way
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_BUSY_WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
_MAX_STACKED: Final = 10


class Usage(NamedTuple):
    """What a writable layer takes on the disk."""

    bytes: int
    inodes: int


class FsUsage(NamedTuple):
    """The file system that holds the store, all its users together."""

    mountpoint: str
    used_bytes: int
    inodes_used: int


class RootStore:
    """The root filesystems below `root`, made of `layers` by `driver`."""

    def __init__(self, root: Path, layers: Layers, driver: LayerDriver) -> None:
        self._root, self._layers, self._driver = root, layers, driver
        self._directory = root / "rootfs"
        self._trash = layers.trash
        self._emptying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the directory, check the driver, begin to empty the trash. After `Layers.open`.

        Raises:
            Unsupported: the driver cannot work here.
        """
        with explain(f"open {self._directory}"):
            await threads.files(files.make_directory, self._directory, 0o700, keep=files.PASS)
        try:
            await self._driver.check()
        except Exhausted as error:  # who shall make room, if not a daemon that has started?
            log.warning("storage driver not checked", error=error)
        self._emptying = asyncio.get_running_loop().create_task(self._trash.run())  # owned: `close` ends it

    async def close(self) -> None:
        """Stop emptying the trash; what is left is deleted after the next start. Mounts stay: containers use them."""
        if self._emptying is None:
            return
        self._emptying.cancel()
        self._trash.interrupt()
        await asyncio.wait([self._emptying])
        self._emptying = None

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
        self, container_id: str, layers: Sequence[str], *, volatile: bool = True, mapped: Mapped | None = None
    ) -> Path:
        """Make a writable layer over `layers` (bottom first) and mount it; returns the mount point.

        With `mapped` the files have the owners that the user namespace maps theirs to, new ones lie on the disk with those,
        and its users may pass the directories from the store's root down (0711). A leftover of the same id is removed
        first. On an error nothing is left.

        Raises:
            Unsupported: too many layers for the driver, or a kernel or file system without mapped ids.
            Exhausted: the disk is full.
        """
        place, top = self._place(container_id), self._layers.path(layers[-1] if layers else EMPTY)
        if place.exists():
            await self.remove(container_id)
        try:
            with explain(f"make the writable layer of container {container_id}"):
                await threads.files(_make_directories, place, top, mapped)
                if mapped is not None:
                    await threads.files(open_way, self._root, self._directory)
            writable = Writable(place / "diff", place / "work", volatile)
            await self._driver.mount(layers, place / "merged", writable, mapped=mapped)
        except BaseException:
            await cleanup(self.remove(container_id), what=f"remove the writable layer of container {container_id}")
            raise
        return place / "merged"

    async def mount(
        self, container_id: str, layers: Sequence[str], *, volatile: bool = True, mapped: Mapped | None = None
    ) -> Path:
        """Mount a writable layer that exists, as it was created; one that is mounted stays as it is.

        Raises:
            CriolloError: the kernel refused.
        """
        place = self._place(container_id)
        merged = place / "merged"
        if not await threads.mounts(_is_mounted, merged):
            await self._driver.mount(layers, merged, Writable(place / "diff", place / "work", volatile), mapped=mapped)
        return merged

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
            await threads.files(self._trash.put, self._place(container_id))
        self._trash.wake()

    async def usage(self, container_id: str) -> Usage:
        """What the writable layer takes on the disk; zero when there is none."""
        with explain(f"measure the writable layer of container {container_id}"):
            found = await threads.files(_measure, self._place(container_id) / "diff")
        return Usage(found.bytes, found.inodes)

    async def fs_usage(self) -> FsUsage:
        """How full the file system of the store is."""
        with explain(f"measure the file system of {self._root}"):
            status = await threads.files(os.statvfs, self._root)
        used_bytes = (status.f_blocks - status.f_bfree) * status.f_frsize
        return FsUsage(str(self._root), used_bytes, status.f_files - status.f_ffree)

    def _place(self, container_id: str) -> Path:
        if not _NAME.fullmatch(container_id):
            raise Invalid("container_id", container_id, "64 lower-case hex digits")
        return self._directory / container_id


def _make_directories(place: Path, top: Path, mapped: Mapped | None) -> None:
    """The root directory of a container looks like that of its topmost layer."""
    status = os.stat(top)
    owner = (status.st_uid, status.st_gid)
    place.mkdir(mode=0o700)
    for name in ("diff", "work", "merged"):
        (place / name).mkdir(mode=0o700)
    if mapped is not None:
        place.chmod(0o711)
        owner = mapped.owner(*owner)
        os.chown(place / "work", *mapped.owner())
    os.chown(place / "diff", *owner)
    os.chmod(place / "diff", stat.S_IMODE(status.st_mode))


def _is_mounted(path: Path) -> bool:
    """Whether something is mounted at `path`: its parent is then on another device."""
    return os.lstat(path).st_dev != os.lstat(path.parent).st_dev


def _measure(directory: Path) -> tree.TreeUsage:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return tree.TreeUsage(0, 0)
    try:
        return tree.usage(fd)
    finally:
        os.close(fd)
