"""The job `unpack`: compressed bytes of a pipe → files below the root, and the digest of the plain bytes (diff id).

Runs confined (`workers.confine`). The whole stream is read, also what follows the end of the archive, because all of it
counts for the digest.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from criollo.errors import Exhausted, explain
from criollo.workers.ahead import ahead
from criollo.workers.extract import Extractor
from criollo.workers.inflate import Opener, read_plain
from criollo.workers.messages import Unpacked, UnpackJob
from criollo.workers.seal import Sealer
from criollo.workers.tar import Entry, Parser

_MAX_IMPLIED_BYTES = 32 << 10  # in the answer, which is one packet


class Supply(NamedTuple):
    """Where the bytes of a layer come from, what decrypts them, and whether a second processor may work at them now."""

    pipe_fd: int
    opened: Opener | None = None
    has_spare: Callable[[], bool] = lambda: False


def unpack(job: UnpackJob, supply: Supply, progress: Callable[[int], None], *, seal_fd: int = -1) -> Unpacked:
    """Unpack one layer into the current directory; with `seal_fd`, an empty file, write its seal there.

    Raises:
        Damaged: the stream or an entry is malformed.
        Exhausted: the disk is full, or the layer exceeds the job's limits.
        HostFailed: the kernel refused something.
    """
    digest = hashlib.sha256()
    parser = Parser(max_entries=job.limit_entries)
    extractor = Extractor(max_inodes=job.limit_entries)
    sealer = Sealer(seal_fd) if seal_fd >= 0 else None
    total = 0

    def hashed() -> Iterator[bytes]:
        for piece in read_plain(supply.pipe_fd, job.compression, supply.opened):
            digest.update(piece)
            yield piece

    for piece in ahead(hashed(), supply.has_spare):
        total += len(piece)
        if total > job.limit_bytes:
            raise Exhausted(f"layer unpacks to more than {job.limit_bytes} bytes, the limit of this node")
        for event in parser.feed(piece):
            if type(event) is Entry:
                extractor.add(event)
            else:
                extractor.write(event)  # type: ignore[arg-type]  # an Entry was handled above; a match is slower here
        if sealer is not None:
            with explain("write the seal of the layer"):
                sealer.add(piece, parser.spans)
        progress(total)
    parser.close()
    extractor.finish()
    if sealer is not None:
        with explain("write the seal of the layer"):
            sealer.finish()
    return Unpacked(
        diff_id=f"sha256:{digest.hexdigest()}",
        size_bytes=extractor.size_bytes,
        inodes=extractor.inodes,
        implied=_as_text(extractor.implied),
    )


def _as_text(names: dict[bytes, None]) -> tuple[str, ...]:
    """Names for the answer: those that JSON can carry, as far as they fit."""
    found: list[str] = []
    size = 0
    for name in names:
        try:
            text = name.decode("ascii")
        except UnicodeDecodeError:
            continue
        size += 2 * len(text) + 3
        if size > _MAX_IMPLIED_BYTES:
            break
        found.append(text)
    return tuple(found)
