"""A layer's directory as a tar in a file, by a worker."""

import os
from pathlib import Path

from criollo.aio import threads
from criollo.errors import explain
from criollo.images.context import Images
from criollo.linux import files
from criollo.workers.messages import Packed


async def pack_layer(images: Images, directory: Path, sink: int, compression: str = "none") -> Packed:
    """Write a directory as a tar, compressed or not, into an open file.

    Raises:
        HostFailed, Exhausted: the directory cannot be read, or the disk does not take it.
    """
    source = files.open_directory(directory)
    try:
        async with images.workers.pack(source, compression) as job:
            await threads.transfers(_drain, job.pipe_fd, sink)
            return await job.result()
    finally:
        os.close(source)


def _drain(pipe_fd: int, sink: int) -> None:
    with explain("write an archive"):
        while os.splice(pipe_fd, sink, 1 << 20):
            pass
