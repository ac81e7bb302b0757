"""The job `pack`: a layer directory → a tar stream, compressed if wanted, with the digests of its bytes before and after.

The reverse of `workers.extract`: whiteout devices become `.wh.NAME`, opaque directories get `.wh..wh..opq`, attributes
and times beyond ustar go to pax headers. The same tree always gives the same bytes: names are sorted, owners are
numbers, nothing of the moment is written. Hard links point to the first name in that order.

Source: OCI image-spec layer.md; POSIX.1-2017, pax.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from criollo.errors import HostFailed, explain
from criollo.workers.deflate import compressor
from criollo.workers.messages import Packed, PackJob
from criollo.workers.tar import BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, LINK, SYMLINK

KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
_READ_BYTES: Final = 1 << 18
_OPAQUE: Final = b"trusted.overlay.opaque"
_PRIVATE: Final = (b"trusted.overlay.", b"user.overlay.")


def pack(job: PackJob, pipe_fd: int, progress: Callable[[int], None]) -> Packed:
    """Write the current directory, which is a layer, as a tar into the pipe.

    Raises:
        HostFailed: a file cannot be read, or nobody reads the pipe.
    """
    plain, packed = _Counted(), _Counted()
    squeeze = compressor(job.compression)

    def write(piece: bytes) -> None:
        packed.add(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(pipe_fd, view) :]

    with explain("write the layer as a tar"):
        for piece in layer_tar():
            plain.add(piece)
            write(squeeze.compress(piece))
            progress(plain.total)
        write(squeeze.flush())
    return Packed(diff_id=plain.digest, size_bytes=plain.total, digest=packed.digest, blob_bytes=packed.total)


class _Counted:
    """The length and digest of a stream."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self.total = 0

    def add(self, piece: bytes) -> None:
        self._hasher.update(piece)
        self.total += len(piece)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"


class Member(NamedTuple):
    """An entry to write."""

    name: bytes
    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: int = 0


def layer_tar() -> Iterator[bytes]:
    """The tar of the current directory in pieces, from the root entry to the two blocks of zeros."""
    links: dict[int, bytes] = {}
    pending = [b""]
    while pending:
        name = pending.pop()
        status = os.lstat(name or b".")
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue  # a socket means nothing without its process
        if kind == CHAR and status.st_rdev == 0:
            directory, slash, base = name.rpartition(b"/")
            yield _marker(directory + slash + b".wh." + base)
        elif kind == DIRECTORY:
            yield from _directory(name, status)
            below = sorted(os.listdir(name or b"."), reverse=True)
            pending += [name + b"/" + base if name else base for base in below]
        elif status.st_nlink > 1 and (first := links.setdefault(status.st_ino, name)) != name:
            yield from header(_member(name, LINK, status)._replace(link=first))
        elif kind == FILE:
            yield from _file(name, status)
        else:
            link = os.readlink(name) if kind == SYMLINK else b""
            device = status.st_rdev if kind in (CHAR, BLOCK_DEVICE) else 0
            yield from header(_member(name, kind, status)._replace(link=link, device=device), _xattrs(name))
    yield bytes(2 * BLOCK)


def _member(name: bytes, kind: bytes, status: os.stat_result) -> Member:
    return Member(name, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, mtime_ns=status.st_mtime_ns)


def _directory(name: bytes, status: os.stat_result) -> Iterator[bytes]:
    yield from header(_member((name or b".") + b"/", DIRECTORY, status), _xattrs(name))
    if _is_opaque(name):
        yield _marker((name + b"/" if name else b"") + b".wh..wh..opq")


def _file(name: bytes, status: os.stat_result) -> Iterator[bytes]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield from header(_member(name, FILE, status)._replace(size=status.st_size), _xattrs(name))
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


def _marker(name: bytes) -> bytes:
    """A whiteout or an opaque mark: an empty file of no time."""
    return b"".join(header(Member(name, FILE, mode=0)))


def header(member: Member, xattrs: Sequence[tuple[bytes, bytes]] = ()) -> Iterator[bytes]:
    """The blocks before an entry's content: a pax header for what ustar cannot say, then the header."""
    seconds, fraction = divmod(member.mtime_ns, 1_000_000_000)
    records = [(b"SCHILY.xattr." + key, value) for key, value in xattrs]
    for key, value in ((b"path", member.name), (b"linkpath", member.link)):
        if len(value) > 100 or not value.isascii():
            records.append((key, value))
    for key, number, width in ((b"size", member.size, 11), (b"uid", member.uid, 7), (b"gid", member.gid, 7)):
        if number >= 8**width:
            records.append((key, b"%d" % number))
    if fraction or not 0 <= seconds < 8**11:
        records.append((b"mtime", _time(member.mtime_ns)))
    if records:
        content = b"".join(_record(key, value) for key, value in sorted(records))
        yield _block(Member(b"././@PaxHeader", b"x", mode=0o644, size=len(content)))
        yield content + bytes(-len(content) % BLOCK)
    yield _block(member)


def _block(member: Member) -> bytes:
    """A ustar header block; a number that does not fit is in the pax header before it, and zero here."""
    fields = (
        member.name[:100].ljust(100, b"\0"),
        _octal(member.mode, 7),
        _octal(member.uid, 7),
        _octal(member.gid, 7),
        _octal(member.size, 11),
        _octal(member.mtime_ns // 1_000_000_000, 11),
        b" " * 8,
        member.kind,
        member.link[:100].ljust(100, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),
        _octal(os.major(member.device), 7),
        _octal(os.minor(member.device), 7),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width, number if 0 <= number < 8**width else 0)


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    length = size + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _time(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    return sign + (b"%d.%09d" % divmod(ns, 1_000_000_000)).rstrip(b"0").rstrip(b".")
