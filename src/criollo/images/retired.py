"""Trees of layers that were replaced while containers used them: they stay until the last of those is gone.

    <root>/retired/<random>/tree       the old tree, a lower directory of mounted root filesystems
    <root>/retired/<random>/users      the containers that had a root filesystem when it was replaced, one a line

Nothing may be deleted under a mounted overlay, and the kernel does not say which mounts have a layer; so all containers of
that moment count. Without the file `users`, which a crash may cost, all that are there when it is missed.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from criollo.errors import explain
from criollo.images.context import Images
from criollo.linux import files, libc
from criollo.storage.layers import Staging
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

DIRECTORY: Final = "retired"
_MAX_BYTES: Final = 16 << 20


def exchange(images: Images, staging: Staging, name: str) -> None:
    """Put a staged tree in the place of a layer, in one step; the old tree is kept for those who use it. Blocking.

    The staging directory is gone afterwards. What is mounted keeps the old tree, what is mounted later has the new one.

    Raises:
        CriolloError: the kernel refused; the old layer is still in its place.
    """
    place = images.layers.root / DIRECTORY / secrets.token_hex(16)
    target = images.layers.path(name)
    with explain(f"replace layer {name}"), images.retiring:
        try:
            os.mkdir(place, 0o700)
        except FileNotFoundError:
            files.make_directory(place, 0o700)
        os.rename(staging.path, place / "tree")  # from here on it is safe from the next start, which empties staging
        try:
            libc.rename_exchange(os.fspath(place / "tree"), os.fspath(target))
        except FileNotFoundError:
            libc.rename_noreplace(os.fspath(place / "tree"), os.fspath(target))
        # After the exchange: who makes its root filesystem now has the new tree, and is none of them.
        _write_users(place, images.roots.ids())


def release(images: Images) -> bool:
    """Let go of the trees that nobody uses any more; whether the trash has some of them now. Blocking.

    Raises:
        CriolloError: a directory cannot be read or moved away.
    """
    with images.retiring:  # what is in the middle of an exchange has no users yet
        return _release(images)


def _release(images: Images) -> bool:
    directory = images.layers.root / DIRECTORY
    try:
        places = [directory / name for name in os.listdir(directory)]
    except FileNotFoundError:
        return False
    if not places:
        return False
    is_any = False
    alive = images.roots.ids()
    for place in places:
        with explain(f"let go of {place}"):
            users = _read_users(place)
            if users is None:
                _write_users(place, alive)
                users = alive
            if not users & alive:
                is_any = images.layers.trash.put(place) or is_any
                log.info("old tree of a repaired layer is not used any more", path=place)
    return is_any


def _write_users(place: Path, users: set[str]) -> None:
    files.write_atomic(place / "users", "\n".join(sorted(users)).encode(), durable=True)


def _read_users(place: Path) -> set[str] | None:
    try:
        return set(files.read_limited(place / "users", _MAX_BYTES).decode("ascii", "replace").split())
    except FileNotFoundError:
        return None
