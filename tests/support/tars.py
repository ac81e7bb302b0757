"""Tar archives block by block, for shapes that no archiver writes."""

import struct


def header(
    name: bytes = b"f", kind: bytes = b"0", size: bytes = b"00000000000\0", *, magic: bytes = b"ustar\x0000", **more: bytes
) -> bytes:
    fields = {
        "mode": b"0000644\0", "uid": b"0000000\0", "gid": b"0000000\0", "mtime": b"00000000000\0", "link": b"",
        "major": b"0000000\0", "minor": b"0000000\0", "prefix": b"",
    } | more  # fmt: skip
    block = struct.pack(
        "100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x",
        *(name, fields["mode"], fields["uid"], fields["gid"], size, fields["mtime"], b" " * 8, kind, fields["link"]),
        *(magic, b"root", b"root", fields["major"], fields["minor"], fields["prefix"]),
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while length != len(str(length)) + len(key) + len(value) + 3:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    content = b"".join(record(key, value) for key, value in records)
    return header(b"PaxHeaders", kind, b"%011o\0" % len(content)) + padded(content)


END = bytes(1024)


def entry(name: bytes, kind: bytes = b"0", content: bytes = b"", **more: bytes) -> bytes:
    """A header and its content."""
    return header(name, kind, b"%011o\0" % len(content), **more) + padded(content)
