"""The jobs `collect` and `place`: files out of a container and into it, with its own root as the root of the process.

The container may run, and be hostile: `workers.live` says how its tree is opened. The process keeps no capability that
the work does not take, and of the host one descriptor: the list of its own descriptors.
"""

import os
from collections.abc import Callable, Iterable
from typing import Final

from criollo.errors import explain
from criollo.workers.collect import Collector
from criollo.workers.inflate import read_plain
from criollo.workers.landing import Shape, land
from criollo.workers.messages import CollectJob, Copied, PlaceJob
from criollo.workers.place import Keep, Placer
from criollo.workers.tar import Entry, Parser

_GATHER_BYTES: Final = 1 << 16  # headers of small files share a write


def collect(job: CollectJob, pipe_fd: int, own: int, progress: Callable[[int], None]) -> Copied:
    """Write a path of the root as a tar into the pipe.

    Raises:
        CriolloError: it is not there or cannot be read, or nobody reads the pipe.
    """
    collector = Collector(own, job.ids)
    held = bytearray()
    total = 0
    for piece in collector.collect(os.fsencode(job.path), name=os.fsencode(job.name), follow=job.follow):
        total += len(piece)
        if len(held) + len(piece) <= _GATHER_BYTES:
            held += piece
            continue
        _write(pipe_fd, held)
        held.clear()
        _write(pipe_fd, piece)
        progress(total)
    _write(pipe_fd, held)
    return Copied(entries=collector.entries, size_bytes=collector.size_bytes, changed=tuple(collector.changed))


def place(job: PlaceJob, pipe_fd: int, own: int, progress: Callable[[int], None]) -> Copied:
    """Make what the tar in the pipe says at a path of the root.

    Raises:
        Damaged: the stream or an entry is malformed, or what is there does not let an entry be.
        Exhausted: the disk is full.
        HostFailed: it cannot go there.
    """
    landing = land(os.fsencode(job.path), Shape(job.shape), os.fsencode(job.base))
    placer = Placer(own, landing, ids=job.ids, keep=Keep(), follow=True)
    fill(placer, read_plain(pipe_fd, "auto" if job.shape == Shape.ARCHIVE else "none"), progress)
    return Copied(entries=placer.entries, size_bytes=placer.size_bytes)


def fill(placer: Placer, pieces: Iterable[bytes], progress: Callable[[int], None] = lambda _: None) -> None:
    """Feed a whole archive to a placer. Raises as `place`; Damaged also for an archive that stops before its end."""
    parser = Parser()
    total = 0
    try:
        for piece in pieces:
            total += len(piece)
            for event in parser.feed(piece):
                if isinstance(event, Entry):
                    placer.add(event)
                else:
                    placer.write(event)
            progress(total)
        parser.close()
        placer.finish()
    finally:
        placer.close()


def _write(pipe_fd: int, piece: bytes | bytearray) -> None:
    with explain("hand on what was read"), memoryview(piece) as view:
        at = 0
        while at < len(view):
            at += os.write(pipe_fd, view[at:])
