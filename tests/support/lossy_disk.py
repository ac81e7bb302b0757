"""A disk that loses writes."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks

from criollo.aio import threads
from criollo.linux import libc, mount


@contextlib.contextmanager
def lossy_disk() -> Iterator["LossyDisk"]:
    """One for the block, in which no descriptor may be left open."""
    with tempfile.TemporaryDirectory(prefix="criollo-", dir="/var/tmp") as home:
        descriptors = leaks.descriptors()
        made = LossyDisk(Path(home))
        try:
            yield made
        finally:
            threads.close()
            made.close()
        assert leaks.new_descriptors(descriptors) == []


class LossyDisk:
    """An ext4 whose image has no room for what is not there yet: what is flushed to it while that is so is lost."""

    def __init__(self, home: Path) -> None:
        self._small, self.mounted = home / "small", home / "mounted"
        for directory in (self._small, self.mounted):
            directory.mkdir()
        mount.mount("tmpfs", self._small, "tmpfs", 0, "size=48m")
        image = self._small / "image"
        with image.open("wb") as sparse:
            sparse.truncate(64 << 20)
        # without a journal: one that cannot be written makes the whole file system read-only, which nobody overlooks
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "nodiscard", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.mounted], check=True)

    @contextlib.contextmanager
    def losing(self) -> Iterator[None]:
        """Begin it before the writes: the kernel may flush at any moment."""
        filler = self._small / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        try:
            yield
        finally:
            filler.unlink()

    def tell_another(self) -> None:
        """Let another process hear of what was lost; who comes after it hears nothing."""
        with pytest.raises(OSError, match=r"Input/output error|No space left"):
            self.sync()
        self.sync()

    def sync(self) -> None:
        """Flush it, as a process that has just come does. Raises OSError: it lost something since the last one heard of it."""
        fd = os.open(self.mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc.syncfs(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        for place in (self.mounted, self._small):
            for target in mount.below(place):
                mount.unmount(target, detach=True)
