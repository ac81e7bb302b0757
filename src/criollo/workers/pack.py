"""The job `pack`: a layer directory → a tar stream, and the digest of its bytes (diff id).

The reverse of `workers.extract`: whiteout devices become `.wh.NAME`, opaque directories get `.wh..wh..opq`, attributes
and times beyond ustar go to pax headers. The same tree always gives the same bytes: names are sorted, owners are
numbers, nothing of the moment is written. Hard links point to the first name in that order.

Source: OCI image-spec layer.md; POSIX.1-2017, pax.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from criollo.errors import HostFailed, explain
from criollo.workers.messages import Packed
from criollo.workers.tar import BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, LINK, SYMLINK

_KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
_READ_BYTES: Final = 1 << 18
_MAX_OCTAL_7, _MAX_OCTAL_11 = 8**7 - 1, 8**11 - 1
_OPAQUE: Final = b"trusted.overlay.opaque"
_PRIVATE: Final = (b"trusted.overlay.", b"user.overlay.")


def pack(pipe_fd: int, progress: Callable[[int], None]) -> Packed:
    """Write the current directory, which is a layer, as a tar into the pipe.

    Raises:
        HostFailed: a file cannot be read, or nobody reads the pipe.
    """
    digest = hashlib.sha256()
    total = 0
    with explain("write the layer as a tar"):
        for piece in layer_tar():
            digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(pipe_fd, view) :]
            total += len(piece)
            progress(total)
    return Packed(diff_id=f"sha256:{digest.hexdigest()}", size_bytes=total)


def layer_tar() -> Iterator[bytes]:
    """The tar of the current directory in pieces, from the root entry to the two blocks of zeros."""
    links: dict[int, bytes] = {}
    pending = [b""]
    while pending:
        name = pending.pop()
        status = os.lstat(name or b".")
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue  # a socket means nothing without its process
        if kind == CHAR and status.st_rdev == 0:
            directory, slash, base = name.rpartition(b"/")
            yield from _header(directory + slash + b".wh." + base, FILE, status, mode=0)
            continue
        if status.st_nlink > 1 and kind != DIRECTORY:
            first = links.setdefault(status.st_ino, name)
            if first != name:
                yield from _header(name, LINK, status, link=first)
                continue
        if kind == FILE:
            yield from _file(name, status)
            continue
        link = os.readlink(name) if kind == SYMLINK else b""
        yield from _header(name + b"/" if kind == DIRECTORY else name, kind, status, link=link, xattrs=_xattrs(name))
        if kind == DIRECTORY:
            if _is_opaque(name):
                yield from _header((name + b"/" if name else b"") + b".wh..wh..opq", FILE, status, mode=0)
            below = sorted(os.listdir(name or b"."), reverse=True)
            pending += [name + b"/" + base if name else base for base in below]
    yield bytes(2 * BLOCK)


def _file(name: bytes, status: os.stat_result) -> Iterator[bytes]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield from _header(name, FILE, status, size=status.st_size, xattrs=_xattrs(name))
        left = status.st_size
        while left:
            piece = os.read(fd, min(left, _READ_BYTES))
            if not piece:
                raise HostFailed(f"layer file {os.fsdecode(name)!r} became shorter while it was read; a layer must not change")
            left -= len(piece)
            yield piece
        yield bytes(-status.st_size % BLOCK)
    finally:
        os.close(fd)


def _xattrs(name: bytes) -> list[tuple[bytes, bytes]]:
    path = name or b"."
    try:
        keys = sorted(os.fsencode(key) for key in os.listxattr(path, follow_symlinks=False))
    except OSError:
        return []  # no attributes on this file system
    return [(key, os.getxattr(path, key, follow_symlinks=False)) for key in keys if not key.startswith(_PRIVATE)]


def _is_opaque(name: bytes) -> bool:
    try:
        return os.getxattr(name or b".", _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _header(
    name: bytes,
    kind: bytes,
    status: os.stat_result,
    *,
    link: bytes = b"",
    size: int = 0,
    mode: int | None = None,
    xattrs: list[tuple[bytes, bytes]] | None = None,
) -> Iterator[bytes]:
    """The blocks before an entry's content: a pax header for what ustar cannot say, then the header."""
    name = name or b"./"
    seconds, fraction = divmod(status.st_mtime_ns, 1_000_000_000)
    records: list[tuple[bytes, bytes]] = [(b"SCHILY.xattr." + key, value) for key, value in xattrs or ()]
    for key, value in ((b"path", name), (b"linkpath", link)):
        if len(value) > 100 or not value.isascii():
            records.append((key, value))
    for key, number, largest in (
        (b"size", size, _MAX_OCTAL_11),
        (b"uid", status.st_uid, _MAX_OCTAL_7),
        (b"gid", status.st_gid, _MAX_OCTAL_7),
    ):
        if number > largest:
            records.append((key, b"%d" % number))
    if fraction or not 0 <= seconds <= _MAX_OCTAL_11:
        records.append((b"mtime", _time(status.st_mtime_ns)))
    if records:
        content = b"".join(_record(key, value) for key, value in sorted(records))
        yield _block(b"././@PaxHeader", b"x", 0o644, 0, 0, len(content), 0)
        yield content + bytes(-len(content) % BLOCK)
    device = status.st_rdev if kind in (CHAR, BLOCK_DEVICE) else 0
    bits = stat.S_IMODE(status.st_mode) if mode is None else mode
    yield _block(name, kind, bits, status.st_uid, status.st_gid, size, seconds, link, device)


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, link: bytes = b"", device: int = 0
) -> bytes:
    """A ustar header block; numbers that do not fit are in the pax header before it, and zero here."""
    fields = (
        name[:100].ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % (uid if uid <= _MAX_OCTAL_7 else 0),
        b"%07o\0" % (gid if gid <= _MAX_OCTAL_7 else 0),
        b"%011o\0" % (size if size <= _MAX_OCTAL_11 else 0),
        b"%011o\0" % (seconds if 0 <= seconds <= _MAX_OCTAL_11 else 0),
        b" " * 8,
        kind,
        link[:100].ljust(100, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),
        b"%07o\0%07o\0" % (os.major(device), os.minor(device)),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    length = size + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _time(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    return sign + (b"%d.%09d" % divmod(ns, 1_000_000_000)).rstrip(b"0").rstrip(b".")
