"""The overlay driver: mount(2) with the layers as lower directories.

The names of the layers are given relative to the layer directory, so that one page of options holds about 110 of them.
More than that go through the newer mount calls, which take one layer at a time (`lowerdir+`, Linux 6.5), up to the
kernel's own limit.

`volatile` spares flushing the writable layer at unmount. Its price: the kernel marks the work directory, and refuses a
later mount until the mark is gone. It is removed here, because a writable layer is mounted again only on a host that did
not go down in between; after a reboot our containers are gone.

Source: Linux, Documentation/filesystems/overlayfs.rst.
"""

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import CriolloError, HostFailed, Unsupported, explain, from_os
from criollo.linux import files, fsmount, mount
from criollo.storage.base import Mapped, Quotas, Usage, Writable
from criollo.storage.layers import EMPTY, Layers
from criollo.storage.mapped import mount_over
from criollo.storage.projects import Projects

MAX_OPTION_BYTES: Final = 4095  # one page with its NUL
MAX_LAYERS: Final = 500  # fs/overlayfs/params.h, OVL_MAX_STACK

_PARAMETERS: Final = "/sys/module/overlay/parameters"


class Overlay:
    """Mounts layers of a store; `options` are added to every writable mount, `flags` (MS_NODEV and their like) to all.

    `root` is where writable layers are, if not beside the layers.
    """

    name = "overlay"

    def __init__(self, layers: Layers, *, root: Path | None = None, options: Sequence[str] = (), flags: int = 0) -> None:
        self.quotas: Quotas = Projects()
        self._layers, self._root = layers, root or layers.root
        self._options, self._flags = tuple(options), flags
        self._takes_volatile = True

    async def check(self) -> None:
        """Mount three layers' worth of nothing, delete a file and a directory through it, look at what is below.

        Raises:
            Unsupported: overlay does not work here; the message says why and what to do.
        """
        await threads.mounts(self._check)

    async def fill(
        self, layers: Sequence[str], writable: Writable, ground: Callable[[], None], *, mapped: Mapped | None = None
    ) -> Usage:
        """Make the two directories. The root directory of a container looks like that of its topmost layer."""
        top = self._layers.path(layers[-1] if layers else EMPTY)
        with explain(f"make {writable.upper}"):
            await threads.files(_make_upper, writable, top, ground, mapped)
        return Usage(0, 0)

    async def mount(
        self,
        layers: Sequence[str],
        target: Path,
        writable: Writable | None,
        *,
        mapped: Mapped | None = None,
        label: str = "",
    ) -> None:
        """Mount `layers` (bottom first) at the directory `target`, their owners as `mapped` says, all with the SELinux `label`.

        Raises:
            Unsupported: too many layers for this kernel, or mapped owners where it has none.
            CriolloError: the kernel refused.
        """
        for name in layers:
            self._layers.path(name)
        await threads.mounts(self._mount, list(layers) or [EMPTY], target, writable, mapped=mapped, label=label)

    def _mount(self, layers: list[str], target: Path, writable: Writable | None, *, mapped: Mapped | None, label: str) -> None:
        with explain(f"mount {len(layers)} layers at {target}"):
            if label and writable is None and len(layers) == 1 and layers != [EMPTY]:  # what is bound keeps its own label
                layers = [EMPTY, *layers]
            if mapped is not None:
                self._mount_mapped(layers, target, mapped, (writable, label))
            elif writable is None and len(layers) == 1:  # overlay wants two without an upper directory
                mount.bind(self._layers.path(layers[0]), target, readonly=True)
            else:
                self._mount_plain(layers, target, writable, label)
            if self._flags:
                again = mount.MS_REMOUNT | mount.MS_BIND
                mount.mount("none", target, None, again | self._flags | _flags(writable))

    def _mount_plain(self, layers: list[str], target: Path, writable: Writable | None, label: str) -> None:
        options = self._prepare(writable)
        layers = [self._layers.lower(name) for name in layers]
        text = ",".join([f"lowerdir={':'.join(reversed(layers))}", *options, *_quoted(label)])
        os.chdir(self._layers.directory)
        try:
            if len(os.fsencode(text)) <= MAX_OPTION_BYTES:
                mount.mount("overlay", target, "overlay", _flags(writable), text)
            else:
                labelled = [*options, f"context={label}"] if label else options
                self._mount_many(layers, target, labelled, readonly=writable is None)
        finally:
            os.chdir("/")

    def _mount_mapped(self, layers: list[str], target: Path, mapped: Mapped, shown: tuple[Writable | None, str]) -> None:
        if len(layers) > MAX_LAYERS:
            raise _too_many(layers, MAX_LAYERS)
        writable, label = shown
        options = [*self._prepare(writable), *_quoted(label)]
        whole = layers if writable is not None or len(layers) > 1 else [EMPTY, *layers]

        def mount_overlay(lower: str, where: str) -> None:
            mount.mount("overlay", where, "overlay", _flags(writable), ",".join([f"lowerdir={lower}", *options]))

        mount_over([self._layers.path(name) for name in whole], target, mapped, mount_overlay)

    def _prepare(self, writable: Writable | None) -> list[str]:
        """The options of a mount beside its layers; the work directory becomes fit to be mounted again."""
        options = list(self._options)
        if writable is not None:
            options += [f"upperdir={_escaped(writable.upper)}", f"workdir={_escaped(writable.work)}"]
            options += ["volatile"] if writable.volatile and self._takes_volatile else []
            files.remove_tree(writable.work / "work/incompat")  # absent unless it was mounted before
        return [*options, *_defaults()]

    def _mount_many(self, layers: list[str], target: Path, options: list[str], *, readonly: bool) -> None:
        limit = MAX_LAYERS
        if len(layers) <= MAX_LAYERS:
            try:
                fsmount.mount(
                    "overlay", target, [*(f"lowerdir+={name}" for name in reversed(layers)), *options], readonly=readonly
                )
            except fsmount.FsmountRefused:
                limit = (MAX_OPTION_BYTES - len(",".join(options)) - len("lowerdir=,")) // (len(max(layers, key=len)) + 1)
            else:
                return
        raise _too_many(layers, limit)

    def _check(self) -> None:
        """Works with layers of its own making; leaves nothing."""
        name = f"check-{secrets.token_hex(8)}"
        lower, place = self._layers.root / "staging" / name, self._root / "trash" / name
        merged = place / "merged"
        try:
            with explain(f"check overlay on {self._root}"):
                for path in (lower / "directory", place / "upper", place / "work", merged):
                    path.mkdir(parents=True)
                (lower / "file").touch()
            self._try(lower, place)
            self._judge(place)
        finally:
            with contextlib.suppress(OSError):
                mount.unmount(merged, detach=True)
            shutil.rmtree(place, ignore_errors=True)
            shutil.rmtree(lower, ignore_errors=True)

    def _try(self, lower: Path, place: Path) -> None:
        options = f"lowerdir={lower},upperdir={place / 'upper'},workdir={place / 'work'}"
        try:
            mount.mount("overlay", place / "merged", "overlay", 0, f"{options},volatile")
        except OSError:
            self._takes_volatile = False  # before Linux 5.10
            try:
                mount.mount("overlay", place / "merged", "overlay", 0, options)
            except OSError as error:
                raise self._unusable(f"{from_os(error, 'a trial mount failed')}") from error

    def _judge(self, place: Path) -> None:
        merged, upper = place / "merged", place / "upper"
        try:
            (merged / "file").unlink()
            (merged / "directory").rmdir()
            (merged / "directory").mkdir()
            gone = "file" not in os.listdir(merged)
            whiteout = os.lstat(upper / "file")
            opaque = os.getxattr(upper / "directory", "trusted.overlay.opaque")
        except OSError as error:
            raise self._unusable(f"removing a file in a trial mount failed: {error.strerror}") from error
        if not gone or not stat.S_ISCHR(whiteout.st_mode) or opaque not in (b"y", b"x"):
            raise self._unusable("a file removed in a trial mount is still seen (its file system has no d_type)")

    def _unusable(self, why: str) -> CriolloError:
        return Unsupported(
            f"cannot keep layers in {self._root}: {why}; the overlay driver needs the overlay module and, below its "
            "root, ext4, xfs with ftype=1, btrfs or tmpfs (inside a container: a volume, not the container's own overlay)"
        )


def _make_upper(writable: Writable, top: Path, ground: Callable[[], None], mapped: Mapped | None) -> None:
    ground()
    status = os.stat(top)
    owner = (status.st_uid, status.st_gid)
    for path in (writable.upper, writable.work):
        path.mkdir(mode=0o700)
    if mapped is not None:
        owner = mapped.owner(*owner)
        os.chown(writable.work, *mapped.owner())
    os.chown(writable.upper, *owner)
    os.chmod(writable.upper, stat.S_IMODE(status.st_mode))
    os.utime(writable.upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def _flags(writable: Writable | None) -> int:
    return mount.MS_RDONLY if writable is None else 0


def _quoted(label: str) -> list[str]:
    """The option that labels all files; in quotes, because categories are separated by commas."""
    return [f'context="{label}"'] if label else []


def _too_many(layers: Sequence[str], limit: int) -> Unsupported:
    return Unsupported(f"image has {len(layers)} layers, overlay takes {limit} here; flatten the image")


def _defaults() -> list[str]:
    """Features that make a writable layer depend on more than its names are off, where the kernel has them."""
    return [f"{name}=off" for name in ("metacopy", "index") if os.path.exists(f"{_PARAMETERS}/{name}")]


def _escaped(path: Path) -> str:
    """A path as an option: overlay itself takes backslashes away; a comma cannot be said to mount(2)."""
    text = os.fspath(path)
    if "," in text:
        raise HostFailed(
            f"cannot mount layers: the path {text} has a comma, which mount options cannot carry; use another root"
        )
    return text.replace("\\", "\\\\").replace(":", "\\:")
