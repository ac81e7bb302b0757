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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import CriolloError, HostFailed, Unsupported, explain, from_os
from criollo.linux import files, fsmount, mount
from criollo.storage.base import Writable
from criollo.storage.layers import EMPTY, Layers

MAX_OPTION_BYTES: Final = 4095  # one page with its NUL
MAX_LAYERS: Final = 500  # fs/overlayfs/params.h, OVL_MAX_STACK

_PARAMETERS: Final = "/sys/module/overlay/parameters"


class Overlay:
    """Mounts layers of a store; `options` are added to every writable mount."""

    def __init__(self, layers: Layers, *, options: Sequence[str] = ()) -> None:
        self._layers = layers
        self._options = tuple(options)
        self._takes_volatile = True

    async def check(self) -> None:
        """Mount three layers' worth of nothing, delete a file and a directory through it, look at what is below.

        Raises:
            Unsupported: overlay does not work here; the message says why and what to do.
        """
        await threads.mounts(self._check)

    async def mount(self, layers: Sequence[str], target: Path, writable: Writable | None) -> None:
        """Mount `layers` (bottom first) at the directory `target`.

        Raises:
            Unsupported: too many layers for this kernel.
            CriolloError: the kernel refused.
        """
        for name in layers:
            self._layers.path(name)
        await threads.mounts(self._mount, list(layers) or [EMPTY], target, writable)

    def _mount(self, layers: list[str], target: Path, writable: Writable | None) -> None:
        what = f"mount {len(layers)} layers at {target}"
        if writable is None and len(layers) == 1:  # overlay wants two without an upper directory
            with explain(what):
                mount.bind(self._layers.path(layers[0]), target, readonly=True)
            return
        options = list(self._options)
        if writable is not None:
            options += [f"upperdir={_escaped(writable.upper)}", f"workdir={_escaped(writable.work)}"]
            options += ["volatile"] if writable.volatile and self._takes_volatile else []
            with explain(what):
                files.remove_tree(writable.work / "work/incompat")  # absent unless it was mounted before
        flags = mount.MS_RDONLY if writable is None else 0
        text = ",".join([f"lowerdir={':'.join(reversed(layers))}", *options, *_defaults()])
        with explain(what):
            os.chdir(self._layers.directory)
            try:
                if len(os.fsencode(text)) <= MAX_OPTION_BYTES:
                    mount.mount("overlay", target, "overlay", flags, text)
                else:
                    self._mount_many(layers, target, [*options, *_defaults()], readonly=writable is None)
            finally:
                os.chdir("/")

    def _mount_many(self, layers: list[str], target: Path, options: list[str], *, readonly: bool) -> None:
        limit = MAX_LAYERS
        if len(layers) <= MAX_LAYERS:
            try:
                fsmount.mount(
                    "overlay", target, [*(f"lowerdir+={name}" for name in reversed(layers)), *options], readonly=readonly
                )
            except fsmount.Refused:
                limit = (MAX_OPTION_BYTES - len(",".join(options)) - len("lowerdir=,")) // (len(layers[0]) + 1)
            else:
                return
        raise Unsupported(f"image has {len(layers)} layers, overlay takes {limit} here; flatten the image")

    def _check(self) -> None:
        """Works with layers of its own making; leaves nothing."""
        place = self._layers.root / "staging" / f"check-{secrets.token_hex(8)}"
        merged = place / "merged"
        try:
            with explain(f"check overlay on {self._layers.root}"):
                for name in ("lower/directory", "upper", "work", "merged"):
                    (place / name).mkdir(parents=True)
                (place / "lower/file").touch()
            self._try(place)
            self._judge(place)
        finally:
            with contextlib.suppress(OSError):
                mount.unmount(merged, detach=True)
            shutil.rmtree(place, ignore_errors=True)

    def _try(self, place: Path) -> None:
        options = f"lowerdir={place / 'lower'},upperdir={place / 'upper'},workdir={place / 'work'}"
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
            f"cannot keep layers in {self._layers.root}: {why}; the overlay driver needs the overlay module and, below its "
            "root, ext4, xfs with ftype=1, btrfs or tmpfs (inside a container: a volume, not the container's own overlay)"
        )


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
