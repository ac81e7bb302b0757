"""An OCI layout as a tar, written by `kpod copy` as blobs come. Its sources are in `copytar`, docker's form in `copydocker`."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from criollo.aio import threads
from criollo.errors import explain
from criollo.images.copy import Gathered
from criollo.images.copyflow import Pour
from criollo.images.copytargets import LAYOUT, LAYOUT_FILE, encode_index, index_entry, refuse_signatures
from criollo.images.layout import blob_path
from criollo.images.workplace import new_file
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor
from criollo.workers.pack import Member, header
from criollo.workers.tar import BLOCK, FILE


class Tape:
    """A tar in an open file. Members of known sizes are written side by side, each at the place that is kept for it."""

    def __init__(self, fd: int) -> None:
        self._fd, self.end = fd, 0

    def reserve(self, length: int) -> int:
        """Where so many bytes, filled up to whole blocks, may be written."""
        at = self.end
        self.end += length + -length % BLOCK
        return at

    async def add(self, path: str, content: bytes) -> None:
        """Add a small file."""
        member = head(path, len(content)) + content
        await threads.files(self.write, member, self.reserve(len(member)))

    async def close(self) -> None:
        """Write the end of the archive."""
        await threads.files(self._close)

    def write(self, content: bytes, at: int) -> None:
        """Blocking."""
        view = memoryview(content)
        with explain("write the archive"):
            while view:
                count = os.pwrite(self._fd, view, at)
                view, at = view[count:], at + count

    @contextmanager
    def opened(self, at: int) -> Iterator[int]:
        """A descriptor of its own that stands there. Blocking."""
        with explain("write the archive"):
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(fd, at, os.SEEK_SET)
            yield fd
        finally:
            os.close(fd)

    def _close(self) -> None:
        with explain("write the archive"):
            os.ftruncate(self._fd, self.end)
        self.write(bytes(2 * BLOCK), self.end)


class ArchiveTarget:
    """A tar in an open file, which its opener publishes."""

    def __init__(self, fd: int, name: str) -> None:
        self._tape, self._name = Tape(fd), name
        self._places: dict[Digest, int] = {}

    async def prepare(self, nodes: Sequence[Gathered]) -> None:
        refuse_signatures(nodes, "an OCI archive")
        await self._tape.add(LAYOUT_FILE, LAYOUT)

    async def has(self, blob: Descriptor) -> bool:
        return False

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        front = head(blob_path(blob.digest), blob.size)
        length = len(front) + blob.size
        at = self._places.get(blob.digest)
        if at is None:
            at = self._places[blob.digest] = self._tape.reserve(length)
        try:
            with self._tape.opened(at + len(front)) as sink:
                await pour(sink)
        except BaseException:
            if self._tape.end == at + length + -length % BLOCK:  # nothing is behind it: it may never come
                self._tape.end = at
                del self._places[blob.digest]
            raise
        await threads.files(self._tape.write, front, at)

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self._tape.add(blob_path(digest), raw)

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Refused before."""

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self.put_document(digest, raw, media_type)
        await self._tape.add("index.json", encode_index([index_entry(digest, raw, media_type, self._name)]))
        await self._tape.close()


@asynccontextmanager
async def opened_archive_target(path: Path, name: str) -> AsyncIterator[ArchiveTarget]:
    """An archive that has its name when the block ends well. Raises Invalid: the path is taken."""
    async with new_file(path) as fd:
        yield ArchiveTarget(fd, name)


def head(path: str, size: int, *, mtime_ns: int = 0) -> bytes:
    """The blocks before the content of a file."""
    return b"".join(header(Member(path.encode(), FILE, mode=0o644, size=size, mtime_ns=mtime_ns)))
