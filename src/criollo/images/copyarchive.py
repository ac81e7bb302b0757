"""An OCI layout as a tar: `kpod copy` writes one as blobs come, and unpacks one before it reads it.

Of an archive that comes only the files of a layout are taken, by their whole names; links, devices and the rest are not looked
at. The tar is parsed as layers are (`workers.tar`), whatever it is compressed with.
"""

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Exhausted, Invalid, explain
from criollo.images.copytargets import LAYOUT, LAYOUT_FILE, encode_index, index_entry, refuse_signatures
from criollo.images.layout import blob_path
from criollo.images.progress import LayerProgress
from criollo.images.workplace import move, open_nameless, publish, taken, workplace
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_BLOB_BYTES, Descriptor
from criollo.workers.inflate import read_plain
from criollo.workers.pack import Member, header
from criollo.workers.tar import BLOCK, FILE, Entry, Parser

_PIECE_BYTES: Final = 1 << 20
_MAX_ENTRIES: Final = 1_000_000
_MAX_BYTES: Final = 4 * MAX_BLOB_BYTES  # of an archive, unpacked
_TAKEN: Final = re.compile(rb"(?:\./)?(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}|blobs/sha512/[0-9a-f]{128})")


class ArchiveTarget:
    """A tar in an open file, which its opener publishes."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd, self._name, self._turn = fd, name, asyncio.Lock()

    async def prepare(self, top: Digest, signatures: Sequence[bytes]) -> None:
        refuse_signatures(signatures)
        await self._add(LAYOUT_FILE, LAYOUT)

    async def has(self, blob: Descriptor) -> bool:
        return False

    async def put(self, blob: Descriptor, fd: int, bar: LayerProgress) -> None:
        async with self._turn:
            await threads.transfers(self._write_file, blob_path(blob.digest), fd, blob.size, bar)

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self._add(blob_path(digest), raw)

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Refused before."""

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self.put_document(digest, raw, media_type)
        await self._add("index.json", encode_index([index_entry(digest, raw, media_type, self._name)]))
        await threads.files(self._write, bytes(2 * BLOCK))

    async def _add(self, path: str, content: bytes) -> None:
        async with self._turn:
            await threads.files(self._write, _head(path, len(content)) + content + bytes(-len(content) % BLOCK))

    def _write_file(self, path: str, fd: int, size: int, bar: LayerProgress) -> None:
        self._write(_head(path, size))
        at = 0
        while at < size:
            with explain("read a blob"):
                piece = os.pread(fd, min(_PIECE_BYTES, size - at), at)
            if not piece:
                raise Invalid("blob", f"{at} bytes", f"{size} bytes")
            self._write(piece)
            at += len(piece)
            bar.done_bytes = at
        self._write(bytes(-size % BLOCK))

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        with explain("write the archive"):
            while view:
                view = view[os.write(self._fd, view) :]


@asynccontextmanager
async def opened_archive_target(path: Path, name: str) -> AsyncIterator[ArchiveTarget]:
    """An archive that has its name when the block ends well. Raises Invalid: the path is taken."""
    if os.path.lexists(path):
        raise taken(path)
    fd = await threads.files(open_nameless, path.parent, 0o644)
    async with contextlib.AsyncExitStack() as stack:
        work: Path | None = None
        if fd is None:
            work = await stack.enter_async_context(workplace(path.parent, path.name)) / "archive"
            with explain(f"write {path}"):
                fd = os.open(work, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        stack.callback(os.close, fd)
        yield ArchiveTarget(fd, name)
        if work is None:
            await threads.files(publish, fd, path)
        else:
            await threads.files(_rename, fd, work, path)


@asynccontextmanager
async def unpacked(path: Path, scratch: Path) -> AsyncIterator[Path]:
    """The layout in an archive, as a directory that goes with the block.

    Raises:
        Invalid: no such file, or no layout in it.
        Damaged: it is no tar, or broken off.
        Exhausted: the disk is full, or it is beyond the limits.
    """
    with explain(f"read {path}"):
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise Invalid("source", str(path), "an archive, which is a file; oci: is for directories")
        async with workplace(scratch, "kpod-copy") as work:
            await threads.transfers(unpack, source, work)
            if not (work / "index.json").exists():
                raise Invalid("source", str(path), "an OCI archive, which has an index.json; kpod load reads docker's, too")
            yield work
    finally:
        os.close(source)


def unpack(source: int, directory: Path, *, limit_bytes: int = _MAX_BYTES) -> None:
    """Write the files of a layout in a tar below an empty directory; of several of one name the last counts. Blocking."""
    taking, parser, left = _Taking(directory), Parser(max_entries=_MAX_ENTRIES), limit_bytes
    try:
        with explain("unpack the archive"):
            for part in ("blobs", "blobs/sha256", "blobs/sha512"):
                os.mkdir(directory / part)
            for chunk in read_plain(source, "auto"):
                left -= len(chunk)
                if left < 0:
                    raise Exhausted(f"cannot read the archive: it has over {limit_bytes} bytes, the limit")
                for event in parser.feed(chunk):
                    taking.take(event)
            parser.close()
    finally:
        taking.close()


class _Taking:
    """Writes the members of a tar that belong to a layout."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._out = directory, -1

    def take(self, event: Entry | memoryview) -> None:
        if not isinstance(event, Entry):
            self._write(event)
            return
        self.close()
        name = _TAKEN.fullmatch(event.name)
        if name is None or event.kind != FILE or event.sparse is not None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._out = os.open(self._directory / os.fsdecode(name[1]), flags, 0o600)
        if event.body is not None:
            self._write(event.body)

    def close(self) -> None:
        if self._out >= 0:
            os.close(self._out)
            self._out = -1

    def _write(self, content: memoryview) -> None:
        while self._out >= 0 and content:
            content = content[os.write(self._out, content) :]


def _head(path: str, size: int) -> bytes:
    return b"".join(header(Member(path.encode(), FILE, mode=0o644, size=size)))


def _rename(fd: int, source: Path, path: Path) -> None:
    with explain(f"write {path}"):
        os.fsync(fd)
        move(source, path)
