"""The node's side of `kpod cp`: a path here → a tar, a tar → a path here. Blocking, for a thread.

What comes out of a container is hostile: links that it brings are never followed here, and nothing leaves the target. Unless
`archive` says so, what gives rights on the node is left behind: setuid and setgid bits, file capabilities, device nodes.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from criollo.errors import CriolloError, Damaged, explain
from criollo.workers import live
from criollo.workers.collect import Collector
from criollo.workers.ids import Ids
from criollo.workers.landing import Landing, Shape, land
from criollo.workers.place import Keep, Placer
from criollo.workers.tar import DIRECTORY, LINK, Entry, Parser

_PIECE_BYTES: Final = 256 << 10


class Departure(NamedTuple):
    """A path of this node that is to be copied."""

    path: bytes
    shape: Shape
    base: str


def departure(path: str, *, follow: bool) -> Departure:
    """What a path is. Raises CriolloError: it is not there."""
    is_content = path == "." or path.endswith("/.")
    with explain(f"copy {path!r}"):
        status = os.stat(path) if follow or is_content or path.endswith("/") else os.lstat(path)
    shape = (Shape.CONTENT if is_content else Shape.DIRECTORY) if stat.S_ISDIR(status.st_mode) else Shape.FILE
    return Departure(os.fsencode(path), shape, base_of(path) or os.path.basename(os.path.realpath(path)))


def base_of(path: str) -> str:
    """The last name of a path; empty when it does not say one (`/`, `.`, `..`)."""
    base = path.rstrip("/").removesuffix("/.").rstrip("/").rpartition("/")[2]
    return "" if base in (".", "..") else base


class Reading:
    """A departure as pieces of a tar. `close` it."""

    def __init__(self, source: Departure, *, follow: bool) -> None:
        self._own = live.own_descriptors()
        self._collector = Collector(self._own, Ids())
        name = os.fsencode(source.base) if source.shape is Shape.FILE else b""
        self._pieces: Iterator[bytes] = self._collector.collect(source.path, name=name, follow=follow)

    @property
    def changed(self) -> list[str]:
        """Files that became shorter while they were read."""
        return self._collector.changed

    def read(self) -> bytes:
        """The next bytes; empty at the end. Raises CriolloError."""
        held = bytearray()
        for piece in self._pieces:
            held += piece
            if len(held) >= _PIECE_BYTES:
                break
        return bytes(held)

    def close(self) -> None:
        os.close(self._own)


class Arriving:
    """Writes what comes to a path; where that is, the first entry decides. `close` it."""

    def __init__(self, path: str, *, base: str, is_content: bool, archive: bool) -> None:
        is_root = os.geteuid() == 0
        self._path, self._base, self._is_content = os.fsencode(path), os.fsencode(base), is_content
        self._keep = Keep(owners=is_root, rights=archive and is_root)
        self._own = live.own_descriptors()
        self._parser = Parser()
        self._landing: Landing | None = None
        self._placer: Placer | None = None

    @property
    def skipped(self) -> list[str]:
        """Devices that were left out."""
        return self._placer.skipped if self._placer is not None else []

    def write(self, piece: bytes) -> None:
        """More of the tar. Raises CriolloError."""
        for event in self._parser.feed(piece):
            if isinstance(event, Entry):
                self._add(event)
            elif self._placer is not None:
                self._placer.write(event)

    def finish(self) -> None:
        """All of it has come. Raises CriolloError."""
        self._parser.close()
        if self._placer is None:
            raise Damaged("nothing has come")
        self._placer.finish()

    def close(self) -> None:
        os.close(self._own)
        if self._placer is not None:
            self._placer.close()
        if self._landing is not None:
            os.close(self._landing.top)

    def _add(self, entry: Entry) -> None:
        if self._placer is None:
            self._placer = self._begin(entry)
        if self._base and not self._is_file:
            entry.name = self._below(entry.name)
            if entry.kind == LINK:
                entry.link = self._below(entry.link)
        self._placer.add(entry)

    def _begin(self, entry: Entry) -> Placer:
        self._is_file = entry.kind != DIRECTORY
        shape = Shape.FILE if self._is_file else Shape.CONTENT if self._is_content else Shape.DIRECTORY
        if self._is_file and not self._base:
            raise CriolloError("cannot copy: the source is no directory, and has no name of its own")
        if shape is Shape.DIRECTORY and not self._base:
            shape = Shape.CONTENT  # the container's root has no name
        self._landing = land(self._path, shape, self._base)
        return Placer(self._own, self._landing, ids=Ids(), keep=self._keep, follow=False)

    def _below(self, name: bytes) -> bytes:
        """A name without that of the source, with which the tar's names begin."""
        if name.rstrip(b"/") == self._base:
            return b"."
        if not name.startswith(self._base + b"/"):
            raise Damaged("a file came that does not belong to what was asked for")
        return name[len(self._base) + 1 :]
