"""Images' layers put together into one tree each, for drivers that cannot mount layers one over the other.

    <root>/trees/<topmost layer>/tree        the tree: a directory whose files are the layers' own inodes, or a subvolume
    <root>/trees/<topmost layer>/facts       the layers it was made of, what it takes on the disk

The name of a topmost layer stands for all below it, so it names the tree. A tree is made when the first container or volume
wants it, beside the others, and gets its name when it is whole and on the disk. It goes when one of its layers is removed,
or with another driver. It can always be made again. Layers may be on another file system: then files are copied.
"""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.aio.locks import KeyedLocks
from criollo.errors import explain
from criollo.linux import files
from criollo.storage.base import Usage
from criollo.storage.layers import EMPTY, Layers
from criollo.storage.trash import Trash
from criollo.workers.messages import AssembleJob
from criollo.workers.pool import Workers

STALL_S: Final = 300.0
_MAX_FACTS_BYTES: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Facts(msgspec.Struct, frozen=True):
    """What is known of a tree: the file `facts`."""

    layers: tuple[str, ...]
    used_bytes: int
    inodes: int


class Trees:
    """The trees below `root`, where the writable layers are. `make` makes an empty directory (blocking)."""

    def __init__(
        self,
        layers: Layers,
        workers: Workers,
        root: Path,
        *,
        link: bool,
        make: Callable[[Path], None] = os.mkdir,
    ) -> None:
        self._layers, self._workers = layers, workers
        self._link, self._make = link, make
        self._directory = root / "trees"
        self._trash = layers.trash_of(root)
        self._locks = KeyedLocks()

    async def open(self) -> None:
        """Make the directory, drop trees whose layers are gone, and follow the layers from now on."""
        await threads.files(self._open)
        self._layers.before_removal = self._forget

    def _open(self) -> None:
        with explain(f"open {self._directory}"):
            files.make_directory(self._directory, 0o700)
            for name in os.listdir(self._directory):
                facts = self._facts(name)
                if facts is None or not all(self._layers.has(layer) for layer in facts.layers):
                    self._trash.put(self._directory / name)

    async def get(self, layers: Sequence[str]) -> tuple[Path, Usage]:
        """The tree of `layers` (bottom first), made if it is not there, and what it takes on the disk.

        Raises:
            Exhausted: the disk is full.
            CriolloError: a layer is not there, or the kernel refused.
        """
        chain = tuple(layers) or (EMPTY,)
        for name in chain:
            self._layers.path(name)
        place = self._directory / chain[-1]
        async with self._locks.hold(chain[-1]):
            facts = await threads.files(self._facts, place.name)
            if facts is None or facts.layers != chain:
                facts = await self._assemble(place, chain)
        return place / "tree", Usage(facts.used_bytes, facts.inodes)

    async def copy(self, tree: Path, target: Path) -> Usage:
        """Copy a tree into the empty directory `target`; returns what the copy takes on the disk."""
        return await self._run(tree.parent, target, AssembleJob(names=(tree.name,)))

    async def _assemble(self, place: Path, chain: tuple[str, ...]) -> Facts:
        staged = self._directory / f".{secrets.token_hex(16)}"
        what = f"put together {len(chain)} layers"
        try:
            with explain(what):
                await threads.files(self._begin, staged)
            job = AssembleJob(names=tuple(map(self._layers.lower, chain)), link=self._link, sync=True)
            used = await self._run(self._layers.directory, staged / "tree", job)
            facts = Facts(chain, used.bytes, used.inodes)
            with explain(what):
                await threads.files(self._commit, staged, place, facts)
        finally:
            try:
                await cleanup(threads.files(self._trash.put, staged), what="a tree that is not finished")
            finally:
                self._trash.wake()
        return facts

    def _begin(self, staged: Path) -> None:
        staged.mkdir(mode=0o700)
        self._make(staged / "tree")

    def _commit(self, staged: Path, place: Path, facts: Facts) -> None:
        files.write_atomic(staged / "facts", msgspec.json.encode(facts), durable=True)
        self._trash.put(place)  # one of other layers, or damaged
        os.rename(staged, place)

    async def _run(self, source: Path, target: Path, job: AssembleJob) -> Usage:
        with explain(f"put together layers in {target}"), contextlib.ExitStack() as stack:
            opened = []
            for directory in (source, target):
                opened.append(await threads.descriptor(functools.partial(os.open, directory, _DIRECTORY)))
                stack.callback(os.close, opened[-1])
            made = await self._workers.assemble(opened[0], opened[1], job, stall_s=STALL_S)
        return Usage(made.used_bytes, made.inodes)

    def _facts(self, name: str) -> Facts | None:
        """What is known of a tree; None for one that is not there, or damaged."""
        try:
            raw = files.read_limited(self._directory / name / "facts", _MAX_FACTS_BYTES)
            facts = msgspec.json.decode(raw, type=Facts)
        except (OSError, msgspec.MsgspecError, ValueError):
            return None
        return facts if (self._directory / name / "tree").is_dir() else None

    def _forget(self, layer: str) -> None:
        """Drop the trees that a layer is part of; one in the making has its layers leased by who wants it."""
        for name in os.listdir(self._directory):
            facts = self._facts(name)
            if facts is not None and layer in facts.layers:
                self._trash.put(self._directory / name)


def forget_all(root: Path, trash: Trash) -> None:
    """Drop every tree: those of another driver (blocking)."""
    directory = root / "trees"
    with explain(f"remove {directory}"):
        for name in os.listdir(directory) if directory.is_dir() else ():
            trash.put(directory / name)
