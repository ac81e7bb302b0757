"""Directories and files for work whose result lands elsewhere: what a killed process leaves of them goes.

    <parent>/.<name>.<8 hex digits>.kpod/      locked while somebody works in it; the next work of that name sweeps the others

A file without a name needs no sweeping: the kernel drops it with its last descriptor. It gets its name when it is whole.
"""

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Invalid, explain
from criollo.linux import files, libc

_LONGEST: Final = 200
# What open and link answer where files cannot be without a name: EISDIR of kernels that do not know the flag.
_NO_NAMELESS: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextlib.asynccontextmanager
async def workplace(parent: Path, name: str) -> AsyncIterator[Path]:
    """An empty directory beside where the result will be, gone with the block.

    Raises:
        HostFailed, Exhausted: it cannot be made.
    """
    async with opened_workplace(parent, name) as place:
        yield place.path


@contextlib.asynccontextmanager
async def opened_workplace(parent: Path, name: str) -> AsyncIterator["Workplace"]:
    """As `workplace`, for directories that are made there and published."""
    place = Workplace(parent, name[:_LONGEST])
    try:
        await threads.files(place.open)
        yield place
    finally:
        await cleanup(threads.files(place.close), what=f"{place.path}")


def open_nameless(directory: Path, mode: int = 0o600) -> int | None:
    """A new file without a name, for writing and reading; None where the filesystem has none. Blocking.

    Raises:
        HostFailed, Exhausted: the directory cannot be written to.
    """
    with explain(f"write below {directory}"):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno in _NO_NAMELESS and directory.is_dir():
                return None
            raise


def anonymous(directory: Path) -> IO[bytes]:
    """A file that never gets a name and goes when it is closed. Blocking.

    Raises:
        HostFailed, Exhausted: the directory cannot be written to.
    """
    with explain(f"write below {directory}"):
        return tempfile.TemporaryFile(dir=directory, prefix="kpod-")


def publish(fd: int, path: Path) -> None:
    """Give a nameless file its name when the disk has it; what has the name is not replaced. Blocking.

    Raises:
        Invalid: the name is taken.
        HostFailed, Exhausted: the disk does not take it.
    """
    with explain(f"write {path}"):
        os.fsync(fd)
        try:
            # /proc/self/fd is a link to the file: linkat follows it. Source: open(2), O_TMPFILE
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            raise taken(path) from None
        sync_directory(path.parent)


@contextlib.asynccontextmanager
async def new_file(path: Path, mode: int = 0o644) -> AsyncIterator[int]:
    """An empty file, for writing and reading, that has its name when the block ends well and the disk has it.

    Raises:
        Invalid: the name is taken.
        HostFailed, Exhausted: the directory cannot be written to.
    """
    if os.path.lexists(path):
        raise taken(path)
    async with contextlib.AsyncExitStack() as stack:
        fd = await threads.descriptor(lambda: open_nameless(path.parent, mode))
        unfinished: Path | None = None
        if fd is None:
            unfinished = await stack.enter_async_context(workplace(path.parent, f"{path.name[:190]}.new")) / "file"
            with explain(f"write {path}"):
                fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        stack.callback(os.close, fd)
        yield fd
        await (threads.files(publish, fd, path) if unfinished is None else threads.files(_rename, fd, unfinished, path))


def move(source: Path, path: Path) -> None:
    """Give something that is on the disk its name there, unless the name is taken. Blocking.

    Raises:
        Invalid: it is.
        OSError: the kernel refused.
    """
    if os.path.lexists(path):
        raise taken(path)
    try:
        libc.rename_noreplace(os.fspath(source), os.fspath(path))
    except FileExistsError:  # by now
        raise taken(path) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.rename(source, path)  # a file system that cannot tell, such as NFS
    sync_directory(path.parent)


def _rename(fd: int, source: Path, path: Path) -> None:
    with explain(f"write {path}"):
        os.fsync(fd)
        move(source, path)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory."""
    with files.opened_directory(os.path.realpath(path)) as directory:
        os.fsync(directory)


def taken(path: Path) -> Invalid:
    """The refusal of a path where something is."""
    return Invalid("path", str(path), "a path where nothing is yet")


class Workplace:
    """One such directory; its methods block."""

    def __init__(self, parent: Path, name: str) -> None:
        # The lock is of before the first write: it is told of lost ones, whoever else was (see storage.layers).
        self._parent, self._name, self._lock = parent, name, -1
        self.path = parent

    def open(self) -> None:
        with explain(f"make a directory below {self._parent}"):
            self._sweep()
            while self._lock < 0:
                self.path = self._parent / f".{self._name}.{secrets.token_hex(4)}.kpod"
                os.mkdir(self.path, 0o700)
                self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if not files.try_lock(self._lock) or not self.path.exists():  # another sweep was between the two calls
                    os.close(self._lock)
                    self._lock = -1

    def publish(self, tree: Path, path: Path) -> None:
        """Give a directory that was made here its name there when the disk has it; what has the name is not replaced.

        Raises:
            Invalid: the name is taken.
            HostFailed, Exhausted: the disk does not take it, or has lost some of it.
        """
        with explain(f"write {path}"):
            libc.syncfs(self._lock)
            move(tree, path)

    def close(self) -> None:
        if self._lock >= 0:
            files.remove_tree(self.path)
            os.close(self._lock)

    def _sweep(self) -> None:
        sweep(self._parent, re.escape(self._name))


def sweep(parent: Path, names: str = "[^/]+") -> None:
    """Remove the places of work below `parent` that nobody holds and whose names fit. Blocking. Raises OSError."""
    ours = re.compile(rf"\.{names}\.[0-9a-f]{{8}}\.kpod")
    for name in filter(ours.fullmatch, os.listdir(parent)):
        try:
            fd = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # gone, or nothing that we made
        try:
            if os.fstat(fd).st_uid == os.geteuid() and files.try_lock(fd):
                files.remove_tree(parent / name)
        finally:
            os.close(fd)
