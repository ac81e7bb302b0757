"""Unpacked layers: staged beside the store, committed by rename, never changed afterwards.

    <root>/layers/<name>/        the tree of a layer; the name is 32 hex digits of its chain id
    <root>/layers/empty/         the layer of an image without layers
    <root>/staging/<random>/     trees in the making; one that nobody works on is garbage and goes at the next `open`
    <root>/trash/<random>/       trees on their way out

A directory in `layers` is whole: it got its name after its digests were right. Everything is 0700, so that no local user
reaches a setuid file of an image.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Invalid, explain
from criollo.linux import files, libc
from criollo.oci.digest import Digest
from criollo.storage.trash import Trash

EMPTY: Final = "empty"
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_BENEATH: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def layer_name(chain_id: Digest) -> str:
    """The directory of the layer with this chain id: short, because mount(2) takes one page of options."""
    return chain_id.hex[:32]


class Staging:
    """A directory in the making: `path`, and `fd`, which is open until it is committed or discarded."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self.fd = path, fd


class Layers:
    """The layers below `root`; see the module."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "layers"
        self.trash = Trash(root / "trash")
        self._trashes = {root: self.trash}
        self.foreign: dict[str, Path] = {}  # trees in other tools' stores, by name: only read (storage.foreign)
        self.before_removal: Callable[[str], None] = lambda _: None  # of a driver that has made something of layers; may block
        self._staging = root / "staging"
        # Of before the first write: the kernel tells each descriptor of the writes that were lost since it was opened, and
        # one opened later hears nothing of what another process's syncfs was told (errseq, Linux 5.8).
        self._sync_fd = -1

    async def open(self) -> None:
        """Make the directories, repair their modes, move what nobody works on to the trash. `close` it.

        Raises:
            CriolloError: the root cannot be used.
        """
        await threads.files(self._open)
        self.trash.wake()

    def _open(self) -> None:
        with explain(f"open the layer store {self.root}"):
            for directory in (self.directory, self._staging):
                files.make_directory(directory, 0o700)
            self.close()
            self._sync_fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.trash.open()
            (self.directory / EMPTY).mkdir(mode=0o755, exist_ok=True)
            for left in self._staging.iterdir():
                self.trash.put(left)

    def close(self) -> None:
        """Let go of the file system; nothing is flushed any more. Safe to repeat."""
        fd, self._sync_fd = self._sync_fd, -1
        if fd >= 0:
            os.close(fd)

    def has(self, name: str) -> bool:
        return self.path(name).is_dir()

    def path(self, name: str) -> Path:
        """The directory of a layer, whether it exists or not.

        Raises:
            Invalid: no name of a layer.
        """
        if name != EMPTY and not _NAME.fullmatch(name):
            raise Invalid("layer", name, "32 lower-case hex digits")
        return self.foreign.get(name) or self.directory / name

    def lower(self, name: str) -> str:
        """A layer as a mount finds it whose thread is in `directory`: short for ours."""
        return str(self.foreign.get(name, name))

    def names(self) -> set[str]:
        """All layers on the disk."""
        with explain(f"list the layers in {self.directory}"):
            return {name for name in os.listdir(self.directory) if _NAME.fullmatch(name)}

    async def stage(self) -> Staging:
        """A new empty directory with the mode of a root directory, 0755. `commit` or `discard` it.

        Raises:
            Exhausted: the disk is full.
        """
        return await threads.handed_over(self._stage, self.discard)

    def _stage(self) -> Staging:
        path = self._staging / secrets.token_hex(16)
        with explain("make a staging directory for a layer"):
            path.mkdir()
            try:
                path.chmod(0o755)
                return Staging(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                path.rmdir()
                raise

    async def commit(self, staging: Staging, name: str) -> None:
        """Give a staged tree its name. If a layer of that name is there, it stays and the staged one is dropped.

        Raises:
            CriolloError: the kernel refused; the staging directory is still there.
        """
        await threads.files(self._commit, staging, self.path(name))
        await self.discard(staging)

    def _commit(self, staging: Staging, target: Path) -> None:
        with explain(f"commit layer {target.name}"), contextlib.suppress(FileExistsError):
            libc.rename_noreplace(os.fspath(staging.path), os.fspath(target))

    async def inherit(self, tree: Path, implied: Sequence[str], below: Sequence[str]) -> None:
        """Let the directories that the tree of a layer uses but does not describe look as in the layers below it.

        `implied` comes from unpacking (`workers.messages.Unpacked`). Each takes mode, owner and times of the topmost layer
        of `below` (bottom first, all committed and done with this) that has it; else an empty `/tmp` entry would hide the
        mode of the real one. For a tree that no image uses yet; safe to repeat.

        Raises:
            CriolloError: a layer is not there.
        """
        if implied and below:
            with explain(f"finish layer {tree}"):
                await threads.files(_inherit, tree, tuple(implied), [self.path(each) for each in below])

    async def discard(self, staging: Staging) -> None:
        """Let go of a staging directory; safe to repeat, and after `commit`."""
        await threads.files(self._discard, staging)
        self.trash.wake()

    def _discard(self, staging: Staging) -> None:
        if staging.fd >= 0:
            os.close(staging.fd)
            staging.fd = -1
        with explain(f"discard {staging.path}"):
            self.trash.put(staging.path)

    async def remove(self, name: str) -> None:
        """Take a layer out of the store; its files are deleted in the background. Absence is success."""
        path = self.path(name)
        if name in self.foreign:
            return
        with explain(f"remove layer {name}"):
            await threads.files(self.before_removal, name)
            await threads.files(self.trash.put, path)
        for trash in self._trashes.values():
            trash.wake()

    def trash_of(self, root: Path) -> Trash:
        """The trash of a root, which may be another than ours: rename(2) wants the same file system."""
        return self._trashes.setdefault(root, Trash(root / "trash"))

    async def sync(self) -> None:
        """Flush the file system of the store: once per pull, before the rows that rely on it.

        Raises:
            CriolloError: writes were lost, now or since the last time, whoever was told of them too.
        """
        with explain(f"flush the layer store {self.root}"):
            await threads.files(libc.syncfs, self._sync_fd)


def _inherit(layer: Path, implied: Sequence[str], below: Sequence[Path]) -> None:
    opened: list[int] = []
    try:
        for path in (layer, *reversed(below)):
            opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        target, *sources = opened
        for name in implied:
            for source in sources:
                if _copy_attributes(source, target, name or "."):
                    break
    finally:
        for fd in opened:
            os.close(fd)


def _copy_attributes(source: int, target: int, name: str) -> bool:
    """Copy mode, owner and times of a directory; False when `source` has none of that name."""
    try:
        found = files.open_in_root(source, name, _BENEATH, resolve=files.BENEATH)
    except OSError:
        return False
    try:
        status = os.fstat(found)
        made = files.open_in_root(target, name, _BENEATH, resolve=files.BENEATH)
        try:
            os.fchown(made, status.st_uid, status.st_gid)
            os.fchmod(made, stat.S_IMODE(status.st_mode))
            os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(made)
    except OSError:
        return True  # replaced by something else later in the layer
    finally:
        os.close(found)
    return True
