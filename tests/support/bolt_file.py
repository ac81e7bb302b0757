"""A bbolt database written at once: nested mappings become buckets. For what no database of containerd looks like."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Tree = Mapping[bytes, Any]  # bytes, or a Tree

PAGE = 4096
_PAGE, _LEAF, _BRANCH, _META = (struct.Struct(text) for text in ("=QHHI", "=IIII", "=IIQ", "=IIIIQQQQQQ"))
_MAGIC = 0xED0CDAED


def bolt_file(tree: Tree, *, txid: int = 7, per_page: int = 3, inline: int = 200) -> bytes:
    """The bytes of a database: leaves of `per_page` elements below branches, buckets up to `inline` bytes inside others."""
    pages: dict[int, bytes] = {}
    root = _write(tree, pages, per_page, inline)
    end = 2 + sum(len(page) // PAGE for page in pages.values())
    out = bytearray(PAGE * end)
    for number, page in pages.items():
        out[number * PAGE : number * PAGE + len(page)] = page
    for number, at in ((0, txid - txid % 2), (1, txid - 1 + txid % 2)):
        out[number * PAGE : number * PAGE + 80] = meta_page(number, root, end, at)
    return bytes(out)


def meta_page(number: int, root: int, end: int, txid: int) -> bytes:
    body = _META.pack(_MAGIC, 2, PAGE, 0, root, 0, 0xFFFFFFFFFFFFFFFF, end, txid, 0)[:-8]
    return _PAGE.pack(number, 4, 0, 0) + body + struct.pack("=Q", fnv64a(body))


def fnv64a(content: bytes) -> int:
    total = 14695981039346656037
    for byte in content:
        total = (total ^ byte) * 1099511628211 % 2**64
    return total


def write_containerd(root: Path, images: Mapping[str, Mapping[str, tuple[str, str]]], blobs: Mapping[str, bytes]) -> None:
    """A root of containerd: by namespace and name the media type and digest of each image; blobs by digest."""
    tree: dict[bytes, Any] = {b"version": b"\x06"}
    for namespace, named in images.items():
        targets = {
            name.encode(): {b"createdat": b"\x01", b"target": {b"digest": digest.encode(), b"mediatype": kind.encode()}}
            for name, (kind, digest) in named.items()
        }
        tree[namespace.encode()] = {b"content": {}, b"images": targets}
    for directory in ("io.containerd.metadata.v1.bolt", "io.containerd.content.v1.content/blobs/sha256"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "io.containerd.metadata.v1.bolt/meta.db").write_bytes(bolt_file({b"v1": tree}))
    for digest, content in blobs.items():
        (root / f"io.containerd.content.v1.content/blobs/sha256/{digest.partition(':')[2]}").write_bytes(content)


def _write(tree: Tree, pages: dict[int, bytes], per_page: int, inline: int) -> int:
    """Write a bucket's pages; returns the number of its root page."""
    elements = [(key, *_value(value, pages, per_page, inline)) for key, value in sorted(tree.items())]
    chunks = [elements[at : at + per_page] for at in range(0, len(elements), per_page)] or [[]]
    level = [(chunk[0][0] if chunk else b"", _put(pages, 2, _leaf_body(chunk), len(chunk))) for chunk in chunks]
    while len(level) > 1:
        groups = [level[at : at + per_page] for at in range(0, len(level), per_page)]
        level = [(group[0][0], _put(pages, 1, _branch_body(group), len(group))) for group in groups]
    return level[0][1]


def _value(value: bytes | Tree, pages: dict[int, bytes], per_page: int, inline: int) -> tuple[int, bytes]:
    if isinstance(value, bytes):
        return 0, value
    plain = all(isinstance(each, bytes) for each in value.values())
    body = _leaf_body([(key, 0, each) for key, each in sorted(value.items())]) if plain else b""
    if plain and len(body) <= inline:
        return 1, struct.pack("=QQ", 0, 0) + _PAGE.pack(0, 2, len(value), 0) + body
    return 1, struct.pack("=QQ", _write(value, pages, per_page, inline), 0)


def _leaf_body(elements: list[tuple[bytes, int, bytes]]) -> bytes:
    heads, bodies = b"", b""
    for number, (key, flags, value) in enumerate(elements):
        position = (len(elements) - number) * _LEAF.size + len(bodies)
        heads += _LEAF.pack(flags, position, len(key), len(value))
        bodies += key + value
    return heads + bodies


def _branch_body(group: list[tuple[bytes, int]]) -> bytes:
    heads, bodies = b"", b""
    for number, (key, page) in enumerate(group):
        heads += _BRANCH.pack((len(group) - number) * _BRANCH.size + len(bodies), len(key), page)
        bodies += key
    return heads + bodies


def _put(pages: dict[int, bytes], flags: int, body: bytes, count: int) -> int:
    number = 2 + sum(len(page) // PAGE for page in pages.values())
    size = -(-(_PAGE.size + len(body)) // PAGE)
    pages[number] = (_PAGE.pack(number, flags, count, size - 1) + body).ljust(size * PAGE, b"\0")
    return number
