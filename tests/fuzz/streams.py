"""Coverage-guided fuzzing of what unpacks gzip and zstd streams, beside zlib and libzstd.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgspec isal zstandard
    mkdir -p /tmp/corpus && PYTHONPATH=src /tmp/fuzz/bin/python tests/fuzz/streams.py -max_total_time=300 /tmp/corpus

What must hold: nothing but `Damaged`; the plain bytes that the other libraries give, member by member, or `Damaged` where they
fail, where something other than zeros follows, or where a frame has another size than it says; bounded pieces; any split.
"""

import gzip
import os
import sys
import zlib

import atheris
import zstandard

with atheris.instrument_imports(include=["criollo.workers.inflate"]):
    from criollo.workers import inflate
from criollo.errors import Damaged


def ours(stream: bytes, kind: str, step: int) -> bytes | None:
    """What we make of it, read in pieces of `step` bytes."""
    fd = os.memfd_create("stream")
    inflate.READ_BYTES = step
    try:
        os.write(fd, stream)
        os.lseek(fd, 0, os.SEEK_SET)
        plain = b""
        for piece in inflate.read_plain(fd, kind):
            assert 0 < len(piece) <= 2 * inflate.PIECE_BYTES
            plain += piece
        return plain
    except Damaged:
        return None
    finally:
        os.close(fd)


def by_zlib(stream: bytes) -> bytes | None:
    plain, rest = b"", stream
    while rest and (rest[:1] != b"\0" or rest is stream):
        rest = rest[:3] + bytes(flags & 0x1F for flags in rest[3:4]) + rest[4:]  # zlib alone minds reserved flags
        member = zlib.decompressobj(31)
        try:
            plain += member.decompress(rest)
        except zlib.error:
            return None
        if not member.eof:
            return None
        rest = member.unused_data
    return None if not stream or rest.strip(b"\0") else plain


def by_libzstd(stream: bytes) -> bytes | None:
    plain, rest = b"", stream
    while rest:
        if rest[1:4] == b"\x2a\x4d\x18" and 0x50 <= rest[0] < 0x60:
            end = 8 + int.from_bytes(rest[4:8], "little")
            if len(rest) < max(8, end):
                return None
            rest = rest[end:]
            continue
        try:
            said = zstandard.frame_content_size(rest)
            frame, at, come = zstandard.ZstdDecompressor(max_window_size=inflate.MAX_WINDOW_BYTES).decompressobj(), 0, b""
            while at < len(rest) and not frame.eof:
                come += frame.decompress(rest[at : at + 1])
                at += 1
        except zstandard.ZstdError:
            return None
        if not frame.eof or said not in (-1, len(come)):
            return None
        plain, rest = plain + come, rest[at:]
    return plain if stream else None


def part(source: atheris.FuzzedDataProvider, kind: str) -> bytes:
    plain = source.ConsumeBytes(source.ConsumeIntInRange(0, 200)) * source.ConsumeIntInRange(1, 40)
    match source.ConsumeIntInRange(0, 9):
        case 0:
            return plain
        case 1:
            return b"\x5a\x2a\x4d\x18" + source.ConsumeIntInRange(0, 20).to_bytes(4, "little") + plain[:20]
        case 2:
            return bytes(source.ConsumeIntInRange(0, 40))
        case _ if kind == "gzip":
            return gzip.compress(plain, source.ConsumeIntInRange(0, 9), mtime=0)
        case _:
            flags = {"write_checksum": source.ConsumeBool(), "write_content_size": source.ConsumeBool()}
            return zstandard.ZstdCompressor(level=source.ConsumeIntInRange(1, 5), **flags).compress(plain)


def one(octets: bytes) -> None:
    source = atheris.FuzzedDataProvider(octets)
    kind, step = source.PickValueInList(["gzip", "zstd"]), source.ConsumeIntInRange(1, 400)
    stream = bytearray(b"".join(part(source, kind) for _ in range(source.ConsumeIntInRange(1, 4))))
    for _ in range(source.ConsumeIntInRange(0, 3) if stream else 0):
        stream[source.ConsumeIntInRange(0, len(stream) - 1)] = source.ConsumeIntInRange(0, 255)
    if source.ConsumeIntInRange(0, 4) == 0:
        del stream[source.ConsumeIntInRange(0, len(stream)) :]
    made = bytes(stream)
    assert ours(made, kind, step) == (by_zlib if kind == "gzip" else by_libzstd)(made)


atheris.Setup(sys.argv, one)
atheris.Fuzz()
