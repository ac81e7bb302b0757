"""A file system that is there and never answers."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from criollo.linux import mount

needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="the kernel has no FUSE")


@contextlib.contextmanager
def dead_mount(directory: Path) -> Iterator[None]:
    """A FUSE file system whose server never answers, over a directory, which is made where there is none: as of a dead NFS
    server. What waits for it gets an error when the block ends."""
    directory.mkdir(exist_ok=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount.mount("dead", directory, "fuse", 0, f"fd={server},rootmode=40000,user_id=0,group_id=0")
        try:
            yield
        finally:
            os.close(server)
            server = -1
            mount.unmount(directory, detach=True)
    finally:
        if server >= 0:
            os.close(server)
