"""The job `verify`: a layer's tree against its seal, and tree and seal together against the diff id.

Runs confined to the layer, as unpacking does; nothing is written, and no access time changes. First what can be seen without
opening files (names, types, modes, owners, sizes, times, links, attributes), then the content of every file, in the order of
the archive. The page cache counts as the disk: a file that is in memory is not read anew.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from typing import Final

from isal.isal_zlib import crc32

from criollo.errors import Damaged
from criollo.workers.messages import Verified, VerifyJob
from criollo.workers.seal import Piece, read_seal
from criollo.workers.seal_look import Look
from criollo.workers.seal_tree import Node, SealTree
from criollo.workers.tar import FILE, Entry, Parser, show_name

MAX_TOLD: Final = 50

_READ_BYTES: Final = 1 << 20  # of a file that is read as a whole
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC


def verify(job: VerifyJob, seal_fd: int, progress: Callable[[int], None]) -> Verified:
    """Hold the current directory against the seal.

    Raises:
        Damaged: the seal itself is broken.
        OSError: the seal cannot be read.
    """
    if job.file:
        return _verify_file(job, progress)
    tree, contents = _expected(seal_fd, progress)
    findings = Findings()
    look = Look(findings.add)
    look.compare(tree.root)
    pace = _Pace(job.bytes_per_s, progress)
    digest = _read_contents(seal_fd, contents, findings, pace)
    if digest and digest != job.diff_id:
        findings.add(b"", f"tree and seal together are {digest}, not the diff id {job.diff_id}")
    return Verified(
        damage=tuple(findings.told),
        damaged=findings.count,
        files=look.seen,
        size_bytes=pace.total,
        proven=digest == job.diff_id,
    )


def _verify_file(job: VerifyJob, progress: Callable[[int], None]) -> Verified:
    """One file that its digest names, as artifacts have them."""
    findings, pace = Findings(), _Pace(job.bytes_per_s, progress)
    name = os.fsencode(job.file)
    algorithm, _, wanted = job.diff_id.partition(":")
    digest = hashlib.new(algorithm)
    try:
        fd = os.open(name, _FLAGS)
        try:
            while stat.S_ISREG(os.fstat(fd).st_mode) and (content := os.read(fd, _READ_BYTES)):
                digest.update(content)
                pace.after(len(content))
        finally:
            os.close(fd)
    except OSError as error:
        findings.add(name, f"cannot be read: {error.strerror}")
    else:
        if digest.hexdigest() != wanted:
            findings.add(name, f"is not what its digest {job.diff_id} says")
    clean = not findings.count
    return Verified(damage=tuple(findings.told), damaged=findings.count, files=1, size_bytes=pace.total, proven=clean)


class Findings:
    """What is wrong; the first few in words. A name is told once per reason."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[str] = []

    def add(self, path: bytes, why: str) -> None:
        self.count += 1
        if len(self.told) < MAX_TOLD:
            self.told.append(f"{show_name(b'/' + path)}: {why}" if path else why)


def _expected(seal_fd: int, progress: Callable[[int], None]) -> tuple[SealTree, list["_Content"]]:
    """What the tree must be, and the contents in the order of the archive."""
    tree, parser, contents = SealTree(), Parser(), []
    for number, piece in enumerate(read_seal(seal_fd)):
        for event in parser.feed(piece.gap):
            if type(event) is Entry:
                node = tree.add(event)
                if event.stored:
                    contents.append(_Content(event, node))
        if piece.length:
            parser.pass_over(piece.length)
        if not number & 0x3FF:
            progress(number)
    parser.close()
    return tree, contents


class _Content:
    """The content of one entry: where it should lie, and how much of it was read. `node` is None when no file has it."""

    __slots__ = ("at", "entry", "node", "region")

    def __init__(self, entry: Entry, node: Node | None) -> None:
        self.entry, self.node = entry, node
        self.at = self.region = 0


def _read_contents(seal_fd: int, contents: list[_Content], findings: Findings, pace: "_Pace") -> str:
    """Read all files; the digest of the whole archive, empty when some content of it is gone."""
    digest = hashlib.sha256()
    whole = True
    reader = _FileReader(findings)
    todo = iter(contents)
    current: _Content | None = None
    begins = True  # another entry's content, since something else lay between
    try:
        for piece in read_seal(seal_fd):
            digest.update(piece.gap)
            begins = begins or bool(piece.gap)
            if not piece.length:
                continue
            if begins or current is None:
                begins, current = False, next(todo, None)
                if current is None:
                    raise Damaged("the layer's seal is broken: it has content that no entry has")
                reader.open(current)
            content = reader.read(current, piece)
            if content is None:
                whole = False
            else:
                digest.update(content)
            pace.after(piece.length)
    finally:
        reader.close()
    return f"sha256:{digest.hexdigest()}" if whole else ""


class _FileReader:
    """One file after the other."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._fd = -1

    def open(self, content: _Content) -> None:
        """Open the file of a content, unless another entry has replaced it or it was found wrong already."""
        self.close()
        node = content.node
        if node is None or node.kind != FILE or node.at is None:
            return
        try:
            self._fd = os.open(node.at, _FLAGS)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                self.close()
        except OSError as error:
            self._findings.add(node.at, f"cannot be opened: {error.strerror}")

    def read(self, content: _Content, piece: Piece) -> bytes | None:
        """The next content; None when it is not there or differs. A file that differs is told once and left."""
        if self._fd < 0:
            return None
        assert content.node is not None
        assert content.node.at is not None
        try:
            found = self._bytes(content, piece.length)
        except OSError as error:
            why = "the disk cannot read it" if error.errno == errno.EIO else f"cannot be read: {error.strerror}"
            self._findings.add(content.node.at, why)
            self.close()
            return None
        if len(found) != piece.length or crc32(found) != piece.crc:
            self._findings.add(content.node.at, f"content differs near byte {content.at - len(found)}")
            self.close()
            return None
        return found

    def _bytes(self, content: _Content, count: int) -> bytes:
        if content.entry.sparse is None:
            found = os.pread(self._fd, count, content.at)
            content.at += len(found)
            return found
        parts: list[bytes] = []
        while count and content.region < len(content.entry.sparse):
            offset, length = content.entry.sparse[content.region]
            part = os.pread(self._fd, min(count, length - content.at), offset + content.at)
            if not part and length > content.at:
                break
            parts.append(part)
            count -= len(part)
            content.at += len(part)
            if content.at == length:
                content.region, content.at = content.region + 1, 0
        return b"".join(parts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Pace:
    """Sleeps so that at most `bytes_per_s` are read (0: no limit), and tells how far it is."""

    def __init__(self, bytes_per_s: int, progress: Callable[[int], None]) -> None:
        self.total = 0
        self._bytes_per_s, self._progress = bytes_per_s, progress
        self._began = time.monotonic()

    def after(self, count: int) -> None:
        self.total += count
        self._progress(self.total)
        if self._bytes_per_s:
            while (ahead_s := self._began + self.total / self._bytes_per_s - time.monotonic()) > 0.01:
                time.sleep(min(ahead_s, 0.5))
                self._progress(self.total)
