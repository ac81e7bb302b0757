"""Stores of every driver on small disks of their own, layers unpacked by the real workers, and trees as plain values."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from support import leaks
from support.images import Entry, tar_of

from criollo.aio import threads
from criollo.engine.images import DRIVERS
from criollo.linux import mount
from criollo.oci.digest import Digest, chain_ids
from criollo.storage.base import Limit
from criollo.storage.layers import Layers, layer_name
from criollo.storage.options import Options
from criollo.storage.rootfs import NO_LIMIT, RootStore
from criollo.workers.pool import Workers

COMBINATIONS = [
    ("overlay", "ext4"),
    ("overlay", "xfs"),
    ("overlay", "btrfs"),
    ("vfs", "ext4"),
    ("vfs", "xfs"),
    ("vfs", "btrfs"),
    ("btrfs", "btrfs"),
]
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-N", "20000"],
    "ext4+quota": ["mkfs.ext4", "-q", "-F", "-N", "20000", "-O", "project,quota"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "xfs+quota": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-m", "single"],
}
SIZE_BYTES = 320 << 20  # xfs takes no less than 300 MiB; the files are sparse

Shown = dict[str, tuple[object, ...]]


@contextlib.contextmanager
def disk(kind: str, *, size_bytes: int = SIZE_BYTES) -> Iterator[Path]:
    """A mounted file system of its own; `+quota` mounts it with project quotas. What is mounted below goes with it.

    Users of a user namespace may pass its directories; pytest's own are closed to them.
    """
    if shutil.which(_MAKE[kind][0]) is None:
        pytest.skip(f"{_MAKE[kind][0]} is not installed")
    home = Path(tempfile.mkdtemp(prefix="criollo-", dir="/var/tmp"))
    home.chmod(0o711)
    image, place = home / "image", home / "disk"
    place.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run([*_MAKE[kind], image], check=True, capture_output=True)
        options = "loop,prjquota" if kind.endswith("+quota") else "loop"
        mounted = subprocess.run(["mount", "-o", options, image, place], capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"this kernel does not mount {kind}: {mounted.stderr.strip()[:100]}")
        yield place
    finally:
        for target in mount.below(place):
            mount.unmount(target, detach=True)
        shutil.rmtree(home)


@contextlib.contextmanager
def root_on(place: Path) -> Iterator[Path]:
    """A store's root on a disk; at its end nothing may be mounted below and no descriptor more be open than before."""
    root = Path(tempfile.mkdtemp(prefix="root-", dir=place))
    threads.close()
    descriptors = leaks.descriptors()
    yield root
    threads.close()
    left = mount.below(root)
    for target in left:
        mount.unmount(target, detach=True)
    assert left == []
    opened = leaks.new_descriptors(descriptors)
    assert opened == [], opened
    asyncio.run(_remove(root))
    threads.close()


async def _remove(root: Path) -> None:
    """By our own trash, which knows of subvolumes."""
    layers = Layers(root)
    await layers.open()
    for below in ("rootfs", "trees"):
        for name in os.listdir(root / below) if (root / below).is_dir() else ():
            layers.trash.put(root / below / name)
    await layers.trash.empty()
    layers.close()
    assert os.listdir(layers.trash.path) == []
    shutil.rmtree(root)


class Store:
    """Layers and root filesystems by one driver."""

    def __init__(
        self, root: Path, driver: str, workers: Workers, *, limit: Limit = NO_LIMIT, images: Path | None = None
    ) -> None:
        self.root, self.workers = root, workers
        self.layers = Layers(images or root)
        self.driver = DRIVERS[driver](self.layers, workers, root, Options())
        self.roots = RootStore(root, self.layers, self.driver, limit=limit)

    async def add(self, *layers: Iterable[Entry]) -> list[str]:
        """Unpack and commit the layers of an image, bottom first; returns their names."""
        names: list[str] = []
        diff_ids: list[Digest] = []
        for entries in layers:
            staging = await self.layers.stage()
            async with self.workers.unpack(staging.fd, "none") as job:
                await threads.transfers(_write, job.pipe_fd, tar_of(entries))
                unpacked = await job.result()
            diff_ids.append(Digest.parse(unpacked.diff_id))
            name = layer_name(chain_ids(diff_ids)[-1])
            await self.layers.commit(staging, name)
            await self.layers.inherit(self.layers.path(name), unpacked.implied, names)
            names.append(name)
        return names

    async def emptied(self) -> None:
        """Wait until the trash is empty."""
        self.layers.trash.wake()
        async with asyncio.timeout(60):
            while os.listdir(self.layers.trash.path) or os.listdir(self.root / "trash"):
                await asyncio.sleep(0.01)


def run(
    root: Path,
    driver: str,
    body: Callable[[Store], Coroutine[object, object, None]],
    *,
    limit: Limit = NO_LIMIT,
    images: Path | None = None,
) -> None:
    """Run a body with an open store; `images` is another root for the layers."""

    async def inside() -> None:
        async with Workers() as workers:
            store = Store(root, driver, workers, limit=limit, images=images)
            await store.layers.open()
            try:
                await store.roots.open()
                try:
                    await body(store)
                finally:
                    await store.roots.close()
            finally:
                store.layers.close()

    asyncio.run(inside())


def shown(top: Path, *, without: Sequence[str] = ()) -> Shown:
    """All below `top`, itself included, by its path: kind, mode, owner, time, content or target or device, attributes.

    Hard links are told by the first path in order.
    """
    found: Shown = {}
    firsts: dict[int, str] = {}
    paths = [top, *sorted(top.rglob("*"))]
    for path in paths:
        name, status = str(path.relative_to(top)), path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        body: object = ""
        if kind == stat.S_IFREG:
            body = (status.st_size, hashlib.sha256(path.read_bytes()).hexdigest(), firsts.setdefault(status.st_ino, name))
        elif kind == stat.S_IFLNK:
            body = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            body = status.st_rdev
        when = 0 if "mtime" in without else status.st_mtime_ns
        found[name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, when, body, attributes(path))
    return found


def attributes(path: Path) -> tuple[tuple[str, bytes], ...]:
    """The extended attributes that are not overlay's own."""
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay."))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _write(pipe_fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(pipe_fd, view) :]
