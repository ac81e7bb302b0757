"""The job `unpack`: compressed bytes of a pipe → files below the root, and the digest of the plain bytes (diff id).

Runs confined (`workers.confine`). The whole stream is read, also what follows the end of the archive, because all of it
counts for the digest.
"""

import hashlib
from collections.abc import Callable

from criollo.errors import Exhausted
from criollo.workers.extract import Extractor
from criollo.workers.inflate import read_plain
from criollo.workers.messages import Unpacked, UnpackJob
from criollo.workers.tar import Entry, Parser

_MAX_IMPLIED_BYTES = 32 << 10  # in the answer, which is one packet


def unpack(job: UnpackJob, pipe_fd: int, progress: Callable[[int], None]) -> Unpacked:
    """Unpack one layer into the current directory.

    Raises:
        Damaged: the stream or an entry is malformed.
        Exhausted: the disk is full, or the layer exceeds the job's limits.
        HostFailed: the kernel refused something.
    """
    digest = hashlib.sha256()
    parser = Parser(max_entries=job.limit_entries)
    extractor = Extractor()
    total = 0
    for piece in read_plain(pipe_fd, job.compression):
        total += len(piece)
        if total > job.limit_bytes:
            raise Exhausted(f"layer unpacks to more than {job.limit_bytes} bytes, the limit of this node")
        digest.update(piece)
        for event in parser.feed(piece):
            if type(event) is Entry:
                extractor.add(event)
            else:
                extractor.write(event)  # type: ignore[arg-type]  # an Entry was handled above; a match is slower here
        progress(total)
    parser.close()
    extractor.finish()
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
