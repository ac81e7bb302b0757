"""Where `kpod copy` writes to, when that is a directory: an OCI layout, a `dir`; a layout is also added to by `kpod push`.

layout     may be there; locked; blobs appear whole, index.json is replaced last: what was cut is taken up again
dir        has its name when it is whole and on the disk; it alone has a place for signatures
"""

import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.aio import threads
from criollo.errors import Invalid, Unavailable, explain
from criollo.images.copy import Gathered
from criollo.images.copyflow import Pour
from criollo.images.dirlayout import VERSION, VERSION_FILE, document_name, write_signatures
from criollo.images.layout import REF_NAME, blob_path
from criollo.images.workplace import open_nameless, opened_workplace, publish, sync_directory, taken
from criollo.linux import files
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_INDEX_ENTRIES, MAX_MANIFEST_BYTES, OCI_INDEX, Descriptor

LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_REPLACED: Final = (LAYOUT_FILE, INDEX_FILE)
_DOCUMENT: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


class LayoutTarget:
    """An OCI layout, new or with images; the image replaces those of its names."""

    def __init__(self, path: Path, *names: str) -> None:
        self._path, self._names = path, names

    async def prepare(self, nodes: Sequence[Gathered]) -> None:
        refuse_signatures(nodes, "an OCI layout")
        await threads.files(_lay_out, self._path)

    async def has(self, blob: Descriptor) -> bool:
        return await threads.files(_is_there, self._path / blob_path(blob.digest), blob.size)

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        await _put_file(self._path / blob_path(blob.digest), pour)

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        with explain(f"write {self._path}"):
            await threads.files(_put_bytes, self._path / blob_path(digest), raw)

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Refused before."""

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self.put_document(digest, raw, media_type)
        await threads.files(_enter, self._path, [index_entry(digest, raw, media_type, name) for name in self._names])


class DirTarget:
    """The directory transport; `path` is a place of work that its opener moves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signatures: dict[Digest, tuple[bytes, ...]] = {}

    async def prepare(self, nodes: Sequence[Gathered]) -> None:
        """It takes everything."""

    async def has(self, blob: Descriptor) -> bool:
        return await threads.files(_is_there, self._path / blob.digest.hex, blob.size)

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        await _put_file(self._path / blob.digest.hex, pour)

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        with explain(f"write {self._path}"):
            await threads.files(_put_bytes, self._path / document_name(digest), raw)

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        self._signatures[digest] = tuple(blobs)

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        def write() -> None:
            for signed, blobs in self._signatures.items():
                write_signatures(self._path, "" if signed == digest else f"{signed.hex}.", blobs)
            (self._path / VERSION_FILE).write_bytes(VERSION)
            (self._path / "manifest.json").write_bytes(raw)

        with explain(f"write {self._path}"):
            await threads.files(write)


@contextmanager
def opened_layout_target(path: Path, *names: str) -> Iterator[LayoutTarget]:
    """A layout for one writer at a time; made if nothing is there. An empty name is none. Blocking.

    Raises:
        Invalid: something else is there.
        Unavailable: another copy writes it.
    """
    with explain(f"write {path}"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not files.try_lock(lock):
            raise Unavailable(f"cannot write {path}: another copy does; wait for it")
        with explain(f"write {path}"):
            _sweep(path)
            is_free = (path / LAYOUT_FILE).exists() or not os.listdir(lock)
        if not is_free:
            raise Invalid("destination", str(path), "an OCI layout, an empty directory, or a path where nothing is yet")
        yield LayoutTarget(path, *names)
    finally:
        os.close(lock)


@asynccontextmanager
async def opened_dir_target(path: Path) -> AsyncIterator[DirTarget]:
    """A `dir` that has its name when the block ends well. Raises Invalid: the path is taken."""
    if os.path.lexists(path):
        raise taken(path)
    async with opened_workplace(path.parent, path.name) as place:
        tree = place.path / "tree"
        with explain(f"write {path}"):
            os.mkdir(tree, 0o755)
        yield DirTarget(tree)
        await threads.files(place.publish, tree, path)


def index_entry(digest: Digest, raw: bytes, media_type: str, name: str) -> dict[str, Any]:
    """What index.json says of an image."""
    entry: dict[str, Any] = {"mediaType": media_type, "digest": str(digest), "size": len(raw)}
    return {**entry, "annotations": {REF_NAME: name}} if name else entry


def encode_index(entries: Sequence[dict[str, Any]], rest: dict[str, Any] | None = None) -> bytes:
    """An index.json; `rest` are further keys of one that is replaced."""
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, **(rest or {}), "manifests": list(entries)})


def refuse_signatures(nodes: Sequence[Gathered], what: str) -> None:
    """Raises Invalid: there are signatures, for which this kind of place has no place."""
    count = sum(len(node.signatures) for node in nodes)
    if count:
        raise Invalid(
            "destination",
            what,
            f"a place for the image's {count} signatures: dir:DIRECTORY or a registry; or say --remove-signatures",
        )


def _sweep(path: Path) -> None:
    """Remove what a killed copy has left of files that it was replacing; of blobs it leaves one to write over, or nothing."""
    for directory in (path, path / "blobs/sha256", path / "blobs/sha512"):
        files.remove_unfinished(directory, lambda name: name in _REPLACED or _DOCUMENT.fullmatch(name) is not None)


def _lay_out(path: Path) -> None:
    with explain(f"write {path}"):
        if not (path / LAYOUT_FILE).exists():
            files.write_atomic(path / LAYOUT_FILE, LAYOUT, 0o644, durable=True)


def _enter(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Add an image's entries to index.json, in place of those of their names, or of the same image without one."""
    names, digests = [_name_of(each) for each in entries], [each["digest"] for each in entries]
    with explain(f"write {path}"), files.opened_directory(path) as directory:
        raw = files.read_in_root(directory, INDEX_FILE, MAX_MANIFEST_BYTES)
        found = {} if raw is None else document.parse_object(raw, what=INDEX_FILE, limit_bytes=MAX_MANIFEST_BYTES)
        listed = found.get("manifests", [])
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise Invalid("index.json manifests", type(listed).__name__, "a list of descriptors")
        kept = [each for each in listed if not _is_replaced(each, names, digests)]
        if len(kept) + len(entries) > MAX_INDEX_ENTRIES:
            raise Invalid("index.json", f"{len(kept)} images", f"fewer than {MAX_INDEX_ENTRIES}; copy into another layout")
        files.write_atomic(path / INDEX_FILE, encode_index([*kept, *entries], found), 0o644, durable=True)


def _is_replaced(entry: dict[str, Any], names: Sequence[object], digests: Sequence[object]) -> bool:
    name = _name_of(entry)
    return name in names and (bool(name) or entry.get("digest") in digests)


def _name_of(entry: dict[str, Any]) -> object:
    annotations = entry.get("annotations")
    return annotations.get(REF_NAME, "") if isinstance(annotations, dict) else ""


def _is_there(path: Path, size: int) -> bool:
    """Whether the blob has a whole file."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size


async def _put_file(path: Path, pour: Pour) -> None:
    """A file with what is poured, which has its name when it is whole and on the disk."""
    part = await threads.handed_over(lambda: _Part(path), lambda part: threads.files(os.close, part.fd))
    try:
        await pour(part.fd)
        await threads.files(part.publish)
    finally:
        os.close(part.fd)


class _Part:
    """A file in the making; where files cannot be without a name, one that the next copy writes over. Its methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._named: Path | None = None
        with explain(f"write {path}"):
            os.makedirs(path.parent, 0o755, exist_ok=True)
            fd = open_nameless(path.parent, 0o644)
            if fd is None:
                self._named = path.with_name(f".{path.name}.part")
                fd = os.open(self._named, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self.fd = fd

    def publish(self) -> None:
        with explain(f"write {self._path}"):
            if self._named is None:
                if os.path.lexists(self._path):
                    os.unlink(self._path)  # of another size: `_is_there` has looked
                publish(self.fd, self._path)
                return
            os.fsync(self.fd)
            os.rename(self._named, self._path)
            sync_directory(self._path.parent)


def _put_bytes(path: Path, raw: bytes) -> None:
    os.makedirs(path.parent, 0o755, exist_ok=True)
    files.write_atomic(path, raw, 0o644, durable=True)
