"""Where the seals of layers are kept: what `crio check` holds the trees against (`workers.seal`).

    <root>/staging/<random>.seal     being written while its layer is unpacked
    <root>/seals/<name>              the seal of layers/<name>; gets its name before the layer does

A layer without a seal was unpacked by an older version, or has too much to seal; it cannot be checked. A seal without a
layer is garbage. Nothing here needs to be secret or trusted: a seal is proven by the diff id of its layer.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from criollo.errors import explain
from criollo.linux import files
from criollo.storage.layers import Layers, Staging

DIRECTORY: Final = "seals"
_SUFFIX: Final = ".seal"


def begin(staging: Staging) -> int:
    """A new empty file for the seal of what is staged; the caller closes it. Blocking.

    Raises:
        Exhausted: the disk is full.
    """
    with explain("make the seal of a layer"):
        return os.open(_staged(staging), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def keep(layers: Layers, staging: Staging, name: str) -> None:
    """Give a staged seal the name of its layer; one that was given up goes. Blocking.

    Raises:
        CriolloError: the kernel refused.
    """
    staged = _staged(staging)
    with explain(f"keep the seal of layer {name}"):
        try:
            written = staged.stat().st_size
        except FileNotFoundError:  # of an artifact's blob, which is checked by its own digest
            return
        if not written:
            staged.unlink()
            return
        path = _path(layers, name)
        try:
            os.rename(staged, path)
        except FileNotFoundError:
            files.make_directory(path.parent, 0o700)
            os.rename(staged, path)


def drop(staging: Staging) -> None:
    """Let go of a staged seal; absence is success. Blocking."""
    with contextlib.suppress(OSError):
        _staged(staging).unlink()


def open_seal(layers: Layers, name: str) -> int | None:
    """The seal of a layer, open for reading; None when it has none. Blocking.

    Raises:
        CriolloError: the kernel refused.
    """
    with explain(f"open the seal of layer {name}"):
        try:
            return os.open(_path(layers, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None


def checked_at(layers: Layers, name: str) -> float | None:
    """When a layer was last found whole, in seconds since the epoch; None when it has no seal. Blocking."""
    try:
        return _path(layers, name).stat().st_mtime
    except OSError:
        return None


def touch(layers: Layers, name: str) -> None:
    """Note that a layer was looked at now. Blocking."""
    with contextlib.suppress(OSError):
        os.utime(_path(layers, name))


def remove(layers: Layers, names: Iterable[str]) -> None:
    """Remove the seals of layers; absence is success, and one that stays is garbage for the next start. Blocking."""
    for name in names:
        with contextlib.suppress(OSError):
            _path(layers, name).unlink()


def sweep(layers: Layers, known: Iterable[str]) -> None:
    """Remove the seals of all other layers. Blocking."""
    try:
        names = os.listdir(layers.root / DIRECTORY)
    except OSError:
        return
    remove(layers, set(names) - set(known))


def _path(layers: Layers, name: str) -> Path:
    return layers.root / DIRECTORY / name


def _staged(staging: Staging) -> Path:
    return staging.path.with_name(staging.path.name + _SUFFIX)
