"""Where `kpod copy` writes to, when that is a directory: an OCI layout, a `dir`.

layout     may be there; locked; blobs appear whole, index.json is replaced last: what was cut is taken up again
dir        has its name when it is whole and on the disk; it alone has a place for signatures
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.aio import threads
from criollo.errors import Invalid, Unavailable, explain
from criollo.images.dirlayout import VERSION, VERSION_FILE, document_name, write_signatures
from criollo.images.layout import REF_NAME, blob_path
from criollo.images.progress import LayerProgress
from criollo.images.workplace import move, open_nameless, publish, sync_directory, taken, workplace
from criollo.linux import files
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_INDEX_ENTRIES, MAX_MANIFEST_BYTES, OCI_INDEX, Descriptor

LAYOUT_FILE: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_PIECE_BYTES: Final = 1 << 20


class LayoutTarget:
    """An OCI layout, new or with images; the image replaces the one of its name."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    async def prepare(self, top: Digest, signatures: Sequence[bytes]) -> None:
        refuse_signatures(signatures)
        await threads.files(_lay_out, self._path)

    async def has(self, blob: Descriptor) -> bool:
        return await threads.files(_is_there, self._path / blob_path(blob.digest), blob.size)

    async def put(self, blob: Descriptor, fd: int, bar: LayerProgress) -> None:
        await threads.transfers(_put_file, self._path / blob_path(blob.digest), fd, blob.size, bar)

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        with explain(f"write {self._path}"):
            await threads.files(_put_bytes, self._path / blob_path(digest), raw)

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Refused before."""

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self.put_document(digest, raw, media_type)
        await threads.files(_enter, self._path, index_entry(digest, raw, media_type, self._name))


class DirTarget:
    """The directory transport; `path` is a place of work that its opener moves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signatures: dict[Digest, tuple[bytes, ...]] = {}

    async def prepare(self, top: Digest, signatures: Sequence[bytes]) -> None:
        """It takes everything."""

    async def has(self, blob: Descriptor) -> bool:
        return await threads.files(_is_there, self._path / blob.digest.hex, blob.size)

    async def put(self, blob: Descriptor, fd: int, bar: LayerProgress) -> None:
        await threads.transfers(_put_file, self._path / blob.digest.hex, fd, blob.size, bar)

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
def opened_layout_target(path: Path, name: str) -> Iterator[LayoutTarget]:
    """A layout for one writer at a time; made if nothing is there. Blocking.

    Raises:
        Invalid: something else is there.
        Unavailable: another copy writes it.
    """
    with explain(f"write {path}"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with explain(f"write {path}"):
            is_free = (path / LAYOUT_FILE).exists() or not os.listdir(lock)
        if not is_free:
            raise Invalid("destination", str(path), "an OCI layout, an empty directory, or a path where nothing is yet")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"cannot write {path}: another copy does; wait for it") from None
        yield LayoutTarget(path, name)
    finally:
        os.close(lock)


@asynccontextmanager
async def opened_dir_target(path: Path) -> AsyncIterator[DirTarget]:
    """A `dir` that has its name when the block ends well. Raises Invalid: the path is taken."""
    if os.path.lexists(path):
        raise taken(path)
    async with workplace(path.parent, path.name) as work:
        tree = work / "tree"
        with explain(f"write {path}"):
            os.mkdir(tree, 0o755)
        yield DirTarget(tree)
        await threads.files(_move_tree, tree, path)


def index_entry(digest: Digest, raw: bytes, media_type: str, name: str) -> dict[str, Any]:
    """What index.json says of an image."""
    entry: dict[str, Any] = {"mediaType": media_type, "digest": str(digest), "size": len(raw)}
    return {**entry, "annotations": {REF_NAME: name}} if name else entry


def encode_index(entries: Sequence[dict[str, Any]], rest: dict[str, Any] | None = None) -> bytes:
    """An index.json; `rest` are further keys of one that is replaced."""
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, **(rest or {}), "manifests": list(entries)})


def refuse_signatures(signatures: Sequence[bytes]) -> None:
    if signatures:
        raise Invalid(
            "destination",
            "an OCI layout",
            f"a place for the image's {len(signatures)} signatures: dir:DIRECTORY or a registry; or say --remove-signatures",
        )


def _lay_out(path: Path) -> None:
    with explain(f"write {path}"):
        if not (path / LAYOUT_FILE).exists():
            files.write_atomic(path / LAYOUT_FILE, LAYOUT, 0o644, durable=True)


def _enter(path: Path, entry: dict[str, Any]) -> None:
    """Add an entry to index.json, in place of those of its name, or of the same image without one."""
    name = _name_of(entry)
    with explain(f"write {path}"), files.opened_directory(path) as directory:
        raw = files.read_in_root(directory, "index.json", MAX_MANIFEST_BYTES)
        found = {} if raw is None else document.parse_object(raw, what="index.json", limit_bytes=MAX_MANIFEST_BYTES)
        listed = found.get("manifests", [])
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise Invalid("index.json manifests", type(listed).__name__, "a list of descriptors")
        kept = [each for each in listed if _name_of(each) != name or (not name and each.get("digest") != entry["digest"])]
        if len(kept) >= MAX_INDEX_ENTRIES:
            raise Invalid("index.json", f"{len(kept)} images", f"fewer than {MAX_INDEX_ENTRIES}; copy into another layout")
        files.write_atomic(path / "index.json", encode_index([*kept, entry], found), 0o644, durable=True)


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


def _put_file(path: Path, fd: int, size: int, bar: LayerProgress) -> None:
    """A file with the bytes of another one: that itself where it has no name yet, else a copy."""
    with explain(f"write {path}"):
        os.makedirs(path.parent, 0o755, exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)  # of another size: `_is_there` has looked
        if os.fstat(fd).st_nlink == 0 and _named(fd, path):
            return
        fresh = open_nameless(path.parent, 0o644)
        if fresh is not None:
            try:
                _copy(fd, fresh, size, bar)
                publish(fresh, path)
            finally:
                os.close(fresh)
            return
        part = path.with_name(f".{path.name}.part")
        out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            _copy(fd, out, size, bar)
            os.fsync(out)
        finally:
            os.close(out)
        os.rename(part, path)
        sync_directory(path.parent)


def _named(fd: int, path: Path) -> bool:
    """Give a nameless file its name, where it is of that file system."""
    if os.fstat(fd).st_dev != os.stat(path.parent).st_dev:
        return False
    try:
        os.fchmod(fd, 0o644)
        os.fsync(fd)
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)  # as `workplace.publish`
    except OSError:
        return False
    sync_directory(path.parent)
    return True


def _copy(source: int, sink: int, size: int, bar: LayerProgress) -> None:
    at = 0
    while at < size:
        piece = os.pread(source, min(_PIECE_BYTES, size - at), at)
        if not piece:
            raise OSError(f"the source ended after {at} of {size} bytes")
        view = memoryview(piece)
        while view:
            view = view[os.write(sink, view) :]
        at += len(piece)
        bar.done_bytes = at


def _put_bytes(path: Path, raw: bytes) -> None:
    os.makedirs(path.parent, 0o755, exist_ok=True)
    files.write_atomic(path, raw, 0o644, durable=True)


def _move_tree(tree: Path, path: Path) -> None:
    with explain(f"write {path}"):
        files.syncfs(tree)
        move(tree, path)
