"""Files by descriptor: opened once beneath a directory, read to a limit, written whole or not at all (threats R1)."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from criollo.errors import Invalid
from criollo.linux import libc

IN_ROOT = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
BENEATH = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS
_UNFINISHED: Final = re.compile(r"\.(.+)\.[0-9a-f]{8}", re.DOTALL)


def open_directory(path: str | Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def opened_directory(path: str | Path) -> Iterator[int]:
    """A directory, and no link to one, to read in or to ask the kernel about, for a block."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def open_in_root(directory: int, path: str | bytes, flags: int = os.O_RDONLY, *, mode: int = 0, resolve: int = IN_ROOT) -> int:
    """Open `path` as a process rooted at `directory` would see it; it cannot lead outside."""
    return libc.openat2(directory, path, flags, mode=mode, resolve=resolve)


def open_regular_in_root(directory: int, path: str | bytes) -> int:
    """Open a regular file as `open_in_root`, for reading. Nothing else is opened: a device of a hostile image would act.

    Raises:
        Invalid: it is something else.
        OSError: it is not there, or the kernel refused.
    """
    found = open_in_root(directory, path, os.O_PATH)
    try:
        mode = os.fstat(found).st_mode
        if not stat.S_ISREG(mode):
            raise Invalid(os.fsdecode(path), stat.filemode(mode), "a regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)


def read_in_root(directory: int, path: str, limit_bytes: int) -> bytes | None:
    """A regular file of a root filesystem; None when there is none.

    Raises:
        Invalid: it is no regular file, or longer than the limit.
    """
    try:
        fd = open_regular_in_root(directory, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return read_limited(fd, limit_bytes, name=path)
    finally:
        os.close(fd)


def read_limited(source: int | str | Path, limit_bytes: int, *, name: str = "") -> bytes:
    """The bytes of a regular file, given as descriptor or path.

    Raises:
        Invalid: no regular file, or longer than `limit_bytes`.
        OSError: it cannot be opened or read.
    """
    shown = name or str(source)
    fd = source if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Invalid(shown, stat.filemode(status.st_mode), "a regular file")
        if status.st_size > limit_bytes:
            raise Invalid(shown, f"{status.st_size} bytes", f"at most {limit_bytes} bytes")
        chunks, left = [], limit_bytes + 1
        while left > 0 and (chunk := os.read(fd, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        if not isinstance(source, int):
            os.close(fd)
    if left <= 0:
        raise Invalid(shown, f"over {limit_bytes} bytes", f"at most {limit_bytes} bytes")
    return b"".join(chunks)


def write_atomic(path: str | Path, content: bytes, mode: int = 0o600, *, durable: bool = False) -> None:
    """Replace a file: readers see the old one or the new one, never half. `durable` survives a power cut."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # `unfinished` knows the form
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            _fill(fd, content, mode, durable=durable)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _fill(fd: int, content: bytes, mode: int, *, durable: bool) -> None:
    os.fchmod(fd, mode)
    write_all(fd, content)
    if durable:
        os.fsync(fd)


def unfinished(name: str) -> str:
    """The name of the file that a killed `write_atomic` has left this in place of; empty for any other name."""
    found = _UNFINISHED.fullmatch(name)
    return found[1] if found else ""


def remove_unfinished(directory: str | Path, is_meant: Callable[[str], bool] = lambda name: True) -> None:
    """Remove what killed writers have left of `write_atomic` in a directory, of the files that are meant: all, where it is
    ours alone. Nobody may be writing one meanwhile. Absence is success.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if (meant := unfinished(name)) and is_meant(meant):
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(os.path.join(directory, name))


PASS = 0o011  # a directory that others may pass through, but not list


def write_all(fd: int, content: bytes) -> None:
    """Write it to the last byte, whatever the kernel takes at once."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def make_directory(path: str | Path, mode: int = 0o700, *, keep: int = 0) -> None:
    """Make a directory and its parents; the mode holds for it even when it was there, unless it has `keep` on top."""
    os.makedirs(path, 0o700, exist_ok=True)
    if stat.S_IMODE(os.stat(path).st_mode) != mode | keep:
        os.chmod(path, mode)


def let_pass(directory: str | Path) -> None:
    """Let everybody who knows a name below a directory through; who may list it stays as it is."""
    mode = stat.S_IMODE(os.stat(directory).st_mode)
    if mode & PASS != PASS:
        os.chmod(directory, mode | PASS)


def own(path: str | Path, owner: tuple[int, int]) -> None:
    """Give a file or directory of ours to a user and group; the host's root needs no call."""
    if owner != (0, 0):
        os.chown(path, *owner, follow_symlinks=False)


def free_bytes(path: str | Path) -> int:
    """How much may still be written to the file system of a path, by those who have nothing reserved."""
    there = os.statvfs(path)
    return there.f_bavail * there.f_frsize


def try_lock(fd: int) -> bool:
    """Hold a file or directory until all descriptors of this opening are closed; False while somebody else holds it.

    Raises:
        OSError: its file system has no such locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_tree(path: str | Path) -> None:
    """Remove a tree of ours: links are not followed, other filesystems not entered, absence is success."""
    path = os.fspath(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(path)
        return
    parent = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_directory(parent, os.path.basename(path), status.st_dev)
    finally:
        os.close(parent)


def _remove_directory(parent: int, name: str, device: int) -> None:
    """Depth first without recursion: an image may hold a thousand levels."""
    stack = [_opened(parent, name, device)]
    names = [name]
    while stack:
        fd = stack[-1]
        below = _empty(fd)
        if below is not None:
            stack.append(_opened(fd, below, device))
            names.append(below)
            continue
        os.close(stack.pop())
        os.rmdir(names.pop(), dir_fd=stack[-1] if stack else parent)


def _opened(parent: int, name: str, device: int) -> int:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    if os.fstat(fd).st_dev != device:
        os.close(fd)
        raise OSError(errno.EXDEV, "something is still mounted there", name)
    return fd


def _empty(fd: int) -> str | None:
    """Unlink all files in a directory; the name of one subdirectory that is left, or None."""
    found = None
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found = entry.name
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
    return found


def make_in_root(directory: int, path: str, mode: int = 0o755, *, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a directory and those above it as a process rooted at `directory` would; what is there stays as it is.

    Raises:
        OSError: something on the way is no directory (ENOTDIR), or the kernel refused.
    """
    parent = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    seen = ""
    try:
        for part in (part for part in path.split("/") if part not in ("", ".")):
            seen = f"{seen}/{part}"
            try:
                below = open_in_root(directory, seen, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, mode, dir_fd=parent)
                if owner != (0, 0):
                    os.chown(part, *owner, dir_fd=parent, follow_symlinks=False)
                below = open_in_root(directory, seen, os.O_PATH | os.O_DIRECTORY)
            os.close(parent)
            parent = below
    finally:
        os.close(parent)
