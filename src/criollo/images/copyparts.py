"""Files that images are copied out of: those of a directory, or the members of an archive (`copytar`).

Everything is read to a limit, and what is poured has the size and digest that were asked for: files may be hostile.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from criollo.aio import threads
from criollo.errors import Damaged, Invalid, NotFound, explain
from criollo.images.progress import LayerProgress
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor

PIECE_BYTES: Final = 256 << 10


class Part(NamedTuple):
    """Bytes of an open file."""

    fd: int
    start: int
    size: int


class Parts(Protocol):
    """Files by their names."""

    def opened(self, name: str) -> AbstractContextManager[Part]:
        """Blocking. Raises NotFound, and Invalid for what is no regular file."""


class DirectoryParts:
    """Files beneath a directory; links lead to nothing outside."""

    def __init__(self, directory: int) -> None:
        self.directory = directory

    @contextmanager
    def opened(self, name: str) -> Iterator[Part]:
        try:
            fd = files.open_regular_in_root(self.directory, name)
        except OSError as error:
            raise _missing(name) from error
        try:
            yield Part(fd, 0, os.fstat(fd).st_size)
        finally:
            os.close(fd)


def read_part(parts: Parts, name: str, limit_bytes: int) -> bytes | None:
    """A small file; None when it is not there. Blocking. Raises Invalid: no regular file, or longer than the limit."""
    with contextlib.ExitStack() as stack:
        try:
            part = stack.enter_context(parts.opened(name))
        except NotFound:
            return None
        if part.size > limit_bytes:
            raise Invalid(name, f"{part.size} bytes", f"at most {limit_bytes} bytes")
        return b"".join(pieces(part, name))


def read_document(parts: Parts, name: str, digest: Digest, limit_bytes: int) -> bytes:
    """A small file whose digest is right. Blocking. Raises Damaged: it is not there, or something else."""
    content = read_part(parts, name, limit_bytes)
    if content is None:
        raise Damaged(f"blob {digest} is missing from the source; make it again")
    if not digest.matches(content):
        raise Damaged(f"blob {digest} is not what its digest says; make the source again")
    return content


def pieces(part: Part, name: str) -> Iterator[bytes]:
    """The bytes of a part; fewer than it has where the file became shorter."""
    at = 0
    while at < part.size:
        with explain(f"read {name}"):
            piece = os.pread(part.fd, min(PIECE_BYTES, part.size - at), part.start + at)
        if not piece:
            return
        at += len(piece)
        yield piece


async def pour_part(parts: Parts, name: str, blob: Descriptor, sink_fd: int, *, bar: LayerProgress) -> None:
    """Write a blob into `sink_fd`.

    Raises:
        NotFound: it is not there.
        Damaged: it is something else.
        HostFailed, Exhausted: it cannot be read, or the sink not be written.
    """
    stopped = threading.Event()

    def work() -> None:
        hasher = blob.digest.hasher()
        with parts.opened(name) as part:
            for piece in pieces(part, name) if part.size == blob.size else ():
                if stopped.is_set():
                    return
                hasher.update(piece)
                write_all(sink_fd, piece)
                bar.done_bytes += len(piece)
        if part.size != blob.size or hasher.hexdigest() != blob.digest.hex:
            raise Damaged(f"blob {blob.digest} is not what its digest and size say; make the source again")

    await threads.interruptible_transfer(work, stopped.set)


def write_all(sink_fd: int, content: bytes) -> None:
    """Write it all. Raises HostFailed, Exhausted."""
    with explain("write a blob"):
        files.write_all(sink_fd, content)


@contextmanager
def opened_directory(path: Path) -> Iterator[DirectoryParts]:
    """The files of a directory. Blocking. Raises HostFailed, NotFound."""
    with explain(f"read {path}"):
        directory = files.open_directory(path)
    try:
        yield DirectoryParts(directory)
    finally:
        os.close(directory)


def _missing(name: str) -> NotFound:
    return NotFound("blob", name, "the source has no such file; make it again")
