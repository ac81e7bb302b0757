"""A directory whose archives and layouts are images of this node: imported at start and when they appear, judged, pinned.

    <preload_dir>/app.tar          an oci-archive or docker-archive, compressed or not
    <preload_dir>/more/            an OCI layout, an unpacked docker archive, or a `dir`: then its name, percent-encoded, is
                                   that of the image (example.com%2Fteam%2Fapp:v1)
    <preload_dir>/.anything        left alone, as are names that end in .part or .tmp: copy to such a name, then rename
    <root>/preload.json            what was imported from which file, so that a start imports nothing twice

File and image are judged by the signature policy as for `kpod load` (`admitted`) before a layer is unpacked. An image that is
here already gets the names and the pin. When a file goes, the pins that only it gave go; the image stays, as any other. What
cannot be imported is told once, and tried again when it changes.
"""

import contextlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import heed_cancel
from criollo.aio.watch import changes
from criollo.errors import CriolloError, Invalid, NotFound, explain
from criollo.images.admitted import admit_image, admit_source
from criollo.images.context import Images
from criollo.images.layout import read_layout
from criollo.images.load import load_found, opened_layout
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.platform import host_platform
from criollo.oci.reference import Reference, is_short
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

FILE: Final = "preload.json"
_UNFINISHED: Final = (".part", ".tmp")
_MAX_BYTES: Final = 16 << 20

Stamp = tuple[int, int, int]


class Imported(msgspec.Struct, frozen=True):
    """What a file gave: its stamp then, and the ids of its images."""

    stamp: Stamp
    images: tuple[str, ...]


class Preload:
    """The images of one directory. `recall` before serving, then `run` as a task."""

    def __init__(self, images: Images, directory: Path) -> None:
        self._images, self._directory = images, directory
        self._record = images.layers.root / FILE
        self._imported: dict[str, Imported] = {}
        self._refused: dict[str, Stamp] = {}
        self._told: set[str] = set()

    async def recall(self) -> None:
        """Pin what an earlier daemon imported, so that nobody collects it before the directory is read."""
        self._imported = await threads.files(self._read)
        self._pin()

    async def run(self) -> None:
        """Import what is there, then what comes; never ends."""
        async with contextlib.aclosing(changes([self._directory])) as bursts:
            async for _ in bursts:
                await self.look()

    async def look(self) -> None:
        """Bring images and pins in line with the directory, once."""
        try:
            there = await threads.files(self._list)
        except CriolloError as error:
            log.warning("preload directory cannot be read; its images stay", directory=self._directory, error=error)
            return
        gone = self._imported.keys() - there.keys()
        for name in gone:
            self._imported.pop(name)
            log.info("preloaded archive is gone: its images are no longer pinned", archive=name)
        self._told &= there.keys()
        changed = bool(gone)
        for name, stamp in sorted(there.items()):
            changed = await self._take(name, stamp) or changed
            heed_cancel()
        self._pin()
        if changed:
            await threads.files(self._write)

    async def _take(self, name: str, stamp: Stamp) -> bool:
        """Import one file unless it is imported, or was refused as it is; whether there is news."""
        known = self._imported.get(name)
        if known is not None and known.stamp == stamp and all(self._images.rows.get(each) for each in known.images):
            return False
        if self._refused.get(name) == stamp:
            return False
        try:
            ids = await self._import(self._directory / name)
        except CriolloError as error:
            self._refused[name] = stamp
            if name not in self._told:
                log.error("archive not preloaded; it is tried again when it changes", archive=name, error=error)
            self._told.add(name)
            return self._imported.pop(name, None) is not None
        self._refused.pop(name, None)
        self._told.discard(name)
        self._imported[name] = Imported(stamp, tuple(ids))
        log.info("archive preloaded", archive=name, images=len(ids))
        return True

    async def _import(self, path: Path) -> list[str]:
        ids: list[str] = []
        async with opened_layout(self._images, path) as directory:
            place = await admit_source(self._images, directory, path)
            layout = read_layout(directory, name=_spelt(path.name) if path.is_dir() else "")
            while (found := await threads.files(next, layout, None)) is not None:
                await admit_image(self._images, found, place)
                self._images.preloaded.add(Digest.of(found.config).hex)
                ids.append((await load_found(self._images, directory, found)).id)
        if not ids:
            raise NotFound("image for platform", str(host_platform()), f"{path} has none")
        return ids

    def _pin(self) -> None:
        self._images.preloaded.clear()
        self._images.preloaded.update(image for each in self._imported.values() for image in each.images)

    def _list(self) -> dict[str, Stamp]:
        """What may hold images, by name. A file is told from its successor by inode, size and time. Blocking."""
        found = {}
        with explain(f"read {self._directory}"):
            try:
                names = os.listdir(self._directory)
            except FileNotFoundError:
                return {}
            for name in names:
                if name.startswith(".") or name.endswith(_UNFINISHED):
                    continue
                path = self._directory / name
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if path.is_dir():
                        status = next(
                            (at.stat() for at in (path / "index.json", path / "manifest.json") if at.exists()), status
                        )
                    found[name] = (status.st_ino, status.st_size, status.st_mtime_ns)
        return found

    def _read(self) -> dict[str, Imported]:
        try:
            return msgspec.json.decode(files.read_limited(self._record, _MAX_BYTES), type=dict[str, Imported])
        except FileNotFoundError:
            return {}
        except (OSError, Invalid, msgspec.MsgspecError) as error:
            log.warning("record of preloaded archives is unreadable: they are imported again", path=self._record, error=error)
            return {}

    def _write(self) -> None:
        with explain(f"write {self._record}"):
            files.write_atomic(self._record, msgspec.json.encode(self._imported))


def _spelt(name: str) -> str:
    """The reference that the name of a directory spells; empty when it is no whole one."""
    text = unquote(name)
    try:
        is_whole = not is_short(text) and bool(Reference.parse(text))
    except Invalid:
        return ""
    return text if is_whole else ""
