"""Compressed bytes of a pipe → plain bytes, in pieces whose size the sender cannot choose.

Libraries only, never a program. A stream is complete or Damaged: several gzip members or zstd frames are one stream,
zeros after the end are padding, anything else there is junk. The format is named by the caller or, for `auto`, told by
the first bytes, as other runtimes do: the media type of a layer sometimes lies.

Source: RFC 1952 (gzip), RFC 8878 (zstd), OCI image-spec layer.md.
"""

import bz2
import lzma
import os
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import zstandard
from isal import igzip_lib

from criollo.errors import Damaged, Unsupported

Opener = Callable[[Iterator[bytes]], Iterator[bytes]]

READ_BYTES: Final = 1 << 17  # half of the pipe: each read wakes whoever fills it
PIECE_BYTES: Final = 1 << 19
MAX_WINDOW_BYTES: Final = 128 << 20
_MAX_BLOCKS_PER_STEP: Final = 4  # a zstd block inflates to 128 KiB at most

_MAGIC: Final = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def read_plain(fd: int, compression: str, opened: Opener | None = None) -> Iterator[bytes]:
    """The plain bytes behind `fd`, read to its end; `compression` is none, gzip, zstd, xz, bzip2 or auto.

    `opened` comes before all that: it decrypts (`workers.decrypt`).

    Raises:
        Damaged: broken, incomplete, or junk after the end.
        Unsupported: an unknown format name.
    """
    pieces = _read_all(fd) if opened is None else opened(_read_all(fd))
    if compression == "auto":
        first = next(pieces, b"")
        while len(first) < 6 and (more := next(pieces, b"")):
            first += more
        compression = next((name for magic, name in _MAGIC if first.startswith(magic)), "none")
        if compression == "none" and first[:4] in _SKIPPABLE:
            compression = "zstd"
        pieces = _with_first(first, pieces)
    if compression == "none":
        return pieces
    if compression == "zstd":
        return _zstd(pieces)
    maker = _MAKERS.get(compression)
    if maker is None:
        raise Unsupported(f"layer compression {compression!r}: known are none, gzip, zstd, xz, bzip2")
    return _members(pieces, compression, maker)


def _read_all(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, READ_BYTES):
        yield piece


def _with_first(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _gzip() -> _Decompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=2 * MAX_WINDOW_BYTES)


_MAKERS: Final[dict[str, Callable[[], _Decompressor]]] = {"gzip": _gzip, "xz": _xz, "bzip2": bz2.BZ2Decompressor}
_IsalError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub forgot that it is a class
_ERRORS: Final = (_IsalError, lzma.LZMAError, OSError, ValueError, EOFError)


def _members(pieces: Iterator[bytes], name: str, maker: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Formats whose stream is a sequence of members, each decompressed by an object of its own."""
    member: _Decompressor | None = None
    seen = padded = False
    for piece in pieces:
        rest = piece
        while rest or (member is not None and not member.needs_input):
            if member is None:
                if seen and not rest.strip(b"\0"):
                    padded = True
                    break
                if padded:
                    raise Damaged(f"layer is no valid {name} stream: other bytes follow the zeros after its end")
                member, seen = maker(), True
            try:
                plain = member.decompress(rest, PIECE_BYTES)
            except _ERRORS as error:
                raise Damaged(f"layer is no valid {name} stream: {error}") from None
            rest = b""
            if member.eof:
                rest, member = member.unused_data, None
            if plain:
                yield plain
    if member is not None or not seen:
        raise Damaged(f"layer is no complete {name} stream: it ends in the middle")


def _zstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    engine = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj(read_across_frames=True)
    frames, came = Frames(), 0
    for piece in pieces:
        for part in frames.split(piece):
            try:
                plain = engine.decompress(part)
            except zstandard.ZstdError as error:
                raise Damaged(f"layer is no valid zstd stream: {error}") from None
            came += len(plain)
            if plain:
                yield plain
            if frames.is_at_end:
                if frames.content_bytes not in (None, came):
                    raise Damaged(f"layer is no valid zstd stream: a frame of {came} bytes says {frames.content_bytes}")
                came = 0
    frames.close()


_FRAME_MAGIC: Final = 0xFD2FB528
_SKIPPABLE: Final = {bytes((nibble, 0x2A, 0x4D, 0x18)) for nibble in range(0x50, 0x60)}
_FRAME, _FRAME_HEADER, _SKIP_HEADER, _BLOCK, _REST = range(5)


class Frames:
    """Follows the frames and blocks of a zstd stream, so that a step has few blocks and the end is known to be one.

    The decompressor itself neither bounds its output nor says that a stream was cut. Whether it looks at the size that a frame
    says depends on how much of the frame it is given at once, so a header is a part of its own, and the size is checked by
    whoever counts: `content_bytes` when `is_at_end`. Source: RFC 8878, section 3.1.
    """

    def __init__(self) -> None:
        self._state, self._after = _FRAME, _FRAME
        self._held = bytearray()
        self._left = 0
        self._checksum = 0
        self._frames = 0
        self._is_part = False  # what comes next begins a part
        self.content_bytes: int | None = None  # of the frame at hand, if it says so

    @property
    def is_at_end(self) -> bool:
        """Whether the part given last is the end of a frame."""
        return self._state == _FRAME and not self._held

    def split(self, piece: bytes) -> Iterator[memoryview]:
        """The same bytes in parts of few blocks each.

        Raises:
            Damaged: what should be a frame is none.
        """
        view = memoryview(piece)
        start = at = blocks = 0
        while at < len(view):
            if self._left:
                step = min(self._left, len(view) - at)
                self._left -= step
                at += step
            elif len(self._held) < (wanted := self._wanted()):
                step = min(wanted - len(self._held), len(view) - at)
                self._held += view[at : at + step]
                at += step
                if len(self._held) == self._wanted():
                    blocks += self._state == _BLOCK
                    self._advance()
            if not self._left and self._state == _REST:
                self._state = self._after
                self._is_part = self._is_part or self._state == _FRAME
            if blocks == _MAX_BLOCKS_PER_STEP or self._is_part:
                self._is_part = False
                yield view[start:at]
                start, blocks = at, 0
        if at > start:
            yield view[start:at]

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            Damaged: the last frame is incomplete, or there was none.
        """
        if self._state != _FRAME or self._held or not self._frames:
            raise Damaged("layer is no complete zstd stream: it ends in the middle")

    def _wanted(self) -> int:
        """How many bytes the header at hand has, as far as it is known."""
        if self._state != _FRAME_HEADER:
            return 3 if self._state == _BLOCK else 4
        if not self._held:
            return 1
        descriptor = self._held[0]
        single = descriptor >> 5 & 1
        return 1 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]

    def _advance(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        number = int.from_bytes(held, "little")
        if self._state == _FRAME:
            if number != _FRAME_MAGIC and held not in _SKIPPABLE:
                raise Damaged("layer is no valid zstd stream: a frame starts with other bytes")
            self._frames += 1
            self._state = _FRAME_HEADER if number == _FRAME_MAGIC else _SKIP_HEADER
        elif self._state == _FRAME_HEADER:
            self._checksum = 4 * (held[0] >> 2 & 1)
            size = (held[0] >> 5 & 1, 2, 4, 8)[held[0] >> 6]
            said = int.from_bytes(held[len(held) - size :], "little") + (256 if size == 2 else 0)
            self.content_bytes = said if size else None
            self._state, self._is_part = _BLOCK, True
        elif self._state == _SKIP_HEADER:
            self.content_bytes = None
            self._left, self._after, self._state = number, _FRAME, _REST
        else:
            last, kind, size = number & 1, number >> 1 & 3, number >> 3
            self._left = (1 if kind == 1 else size) + (self._checksum if last else 0)  # kind 1: one byte, repeated
            self._after, self._state = (_FRAME if last else _BLOCK), _REST
