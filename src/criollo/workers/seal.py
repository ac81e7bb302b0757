"""The seal of a layer: what its archive had besides the content of files, so that the tree can be held against it later.

Written while the layer is unpacked. Headers and padding are kept as they were; of content only the length and a CRC of each
piece. Headers from here and contents from the tree are together the archive again, byte by byte, so the proof is the layer's
diff id, which the image's config names: the seal itself need not be trusted. The CRCs only tell which file it was.

    file      one zstd frame (with a checksum of its own) of: MAGIC, parts, END
    part      u32 count, u32 tail; count x (u32 gap, u32 content, u32 crc); then the bytes of all gaps and of the tail
    END       u32 0xFFFFFFFF, u32 0

Content with nothing between it and the content before continues that. Numbers are little-endian.
Source: docs/decisions/0009-seals-of-layers.md.
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import zstandard
from isal.isal_zlib import crc32

from criollo.errors import Damaged

MAGIC: Final = b"criollo seal 1\n\0"
MAX_SEAL_BYTES: Final = 256 << 20
"""A layer whose headers and padding need more, compressed, gets no seal: it hides something else there."""

_PART: Final = struct.Struct("<II")
_END: Final = _PART.pack(0xFFFFFFFF, 0)
_LEVEL: Final = -3  # half the time of level 1, a fifth more bytes
_MAX_COUNT: Final = 1 << 16
_MAX_GAP_BYTES: Final = 64 << 20
_READ_BYTES: Final = 1 << 16
_MAX_WINDOW_BYTES: Final = 8 << 20

Span = tuple[int, int]
"""Where content lies in a piece of the archive: start and end."""


class Piece(NamedTuple):
    """Bytes of the archive that the seal has, and the length and CRC of the content after them; length 0: none."""

    gap: bytes
    length: int
    crc: int


class Sealer:
    """Writes a seal to a descriptor, piece by piece of the archive; `finish` when all have come."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        self._written = 0
        self._given_up = False
        self._write(self._compressor.compress(MAGIC))

    def add(self, piece: bytes, spans: Sequence[Span]) -> None:
        """The next piece of the archive, with the spans of content in it.

        Raises:
            OSError: the disk is full.
        """
        if self._given_up:
            return
        view = memoryview(piece)
        table = array("I")
        parts: list[bytes | memoryview] = [b"", b""]
        at = 0
        for start, end in spans:
            table.extend((start - at, end - start, crc32(view[start:end])))
            parts.append(view[at:start])
            at = end
        parts.append(view[at:])
        if sys.byteorder == "big":
            table.byteswap()
        parts[0], parts[1] = _PART.pack(len(spans), len(piece) - at), table.tobytes()
        self._write(self._compressor.compress(b"".join(parts)))

    def finish(self) -> None:
        """Write the end. Raises OSError when the disk is full."""
        if not self._given_up:
            self._write(self._compressor.compress(_END) + self._compressor.flush())

    def _write(self, content: bytes) -> None:
        self._written += len(content)
        if self._written > MAX_SEAL_BYTES:
            self._given_up = True
            os.ftruncate(self._fd, 0)
            return
        view = memoryview(content)
        while view:
            view = view[os.write(self._fd, view) :]


def read_seal(fd: int) -> Iterator[Piece]:
    """The pieces of a seal, in order; from the beginning of the file.

    Raises:
        Damaged: it is broken, or is not whole.
        OSError: it cannot be read.
    """
    reader = _Reader(fd)
    if reader.take(len(MAGIC)) != MAGIC:
        raise _broken("it begins with other bytes")
    while True:
        head = reader.take(_PART.size)
        if head == _END:
            break
        count, tail = _PART.unpack(head)
        if count > _MAX_COUNT:
            raise _broken("a part is too long")
        table = array("I")
        table.frombytes(reader.take(12 * count))
        if sys.byteorder == "big":
            table.byteswap()
        if sum(table[0::3]) + tail > _MAX_GAP_BYTES:
            raise _broken("a part is too long")
        for gap, length, crc in zip(table[0::3], table[1::3], table[2::3], strict=True):
            yield Piece(reader.take(gap), length, crc)
        if tail:
            yield Piece(reader.take(tail), 0, 0)
    reader.close()


class _Reader:
    """Decompressed bytes, by exact counts."""

    def __init__(self, fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        self._fd = fd
        self._frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        self._held = bytearray()
        self._at = 0

    def take(self, count: int) -> bytes:
        while len(self._held) - self._at < count:
            del self._held[: self._at]
            self._at = 0
            if not self._more():
                raise _broken("it ends in the middle")
        taken = bytes(self._held[self._at : self._at + count])
        self._at += count
        return taken

    def close(self) -> None:
        """Say that nothing must follow."""
        while self._more():
            pass
        if self._at != len(self._held) or not self._frame.eof:
            raise _broken("it does not end where it should")

    def _more(self) -> bool:
        compressed = os.read(self._fd, _READ_BYTES)
        if not compressed:
            return False
        if self._frame.eof:
            raise _broken("something follows its end")
        try:
            self._held += self._frame.decompress(compressed)
        except zstandard.ZstdError as error:
            raise _broken(str(error)) from None
        return True


def _broken(why: str) -> Damaged:
    return Damaged(f"the layer's seal is broken: {why}")
