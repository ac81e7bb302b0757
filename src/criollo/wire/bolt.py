"""bbolt databases, read only: meta pages, pages, buckets. Pure: pages come from a function of the caller.

    0    meta page      16 bytes of page header, then magic, version, page size, flags, root bucket, free list, end, txid, sum
    1    meta page      the other of the two; the valid one with the higher txid counts
    2…   pages          header: id u64, flags u16, count u16, overflow u32; then elements; then their keys and values

A writer never changes a page that the current meta page leads to: who reads while one writes, and finds the same txid
afterwards, has read one consistent state. Bytes are not trusted: every offset is checked, a page is visited once per walk,
depths and numbers have limits. Integers have the byte order of the machine that wrote them.

Source: go.etcd.io/bbolt, internal/common (meta.go, page.go, bucket.go), format version 2.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Self

from criollo.errors import Damaged

MAGIC: Final = 0xED0CDAED
VERSION: Final = 2
PAGE_SIZES: Final = (4096, 8192, 16384, 32768, 65536, 1024, 2048)
MAX_PAGE_BYTES: Final = 64 << 20  # of one page with its overflow
MAX_DEPTH: Final = 32

_PAGE: Final = struct.Struct("=QHHI")
_META: Final = struct.Struct("=IIIIQQQQQQ")
_BRANCH: Final = struct.Struct("=IIQ")
_LEAF: Final = struct.Struct("=IIII")
_BUCKET: Final = struct.Struct("=QQ")
_IS_BRANCH, _IS_LEAF, _IS_META = 1, 2, 4
_IS_BUCKET: Final = 1  # flag of a leaf element

Read = Callable[[int, int], bytes]


class Meta(NamedTuple):
    """What a meta page says; `end` is the number of pages."""

    page_size: int
    root: int
    end: int
    txid: int


def read_meta(read: Read) -> Meta:
    """The meta page that counts; `read(offset, size)` gives bytes of the file, fewer at its end.

    Raises:
        Damaged: neither meta page is valid: no database, or one of another version or byte order.
    """
    first = _meta(read(0, _PAGE.size + _META.size))
    sizes = (first.page_size,) if first is not None else PAGE_SIZES
    second = next((meta for size in sizes if (meta := _meta(read(size, _PAGE.size + _META.size))) is not None), None)
    found = max((meta for meta in (first, second) if meta is not None), key=lambda meta: meta.txid, default=None)
    if found is None:
        raise Damaged("no valid meta page: the file is no bbolt database of this machine's byte order, or it is damaged")
    return found


def _meta(raw: bytes) -> Meta | None:
    if len(raw) < _PAGE.size + _META.size:
        return None
    body = raw[_PAGE.size :]
    magic, version, page_size, _, root, _, _, end, txid, total = _META.unpack(body)
    if magic != MAGIC or version != VERSION or page_size not in PAGE_SIZES or total != _fnv64a(body[:-8]):
        return None
    return Meta(page_size, root, end, txid)


def _fnv64a(content: bytes) -> int:
    total = 0xCBF29CE484222325
    for byte in content:
        total = ((total ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return total


class Bucket:
    """Keys with values, and buckets inside. `Bucket.root(read)` is the outermost one."""

    def __init__(self, read: Read, meta: Meta, page: int, inline: bytes = b"") -> None:
        self._read, self._meta, self._page, self._inline = read, meta, page, inline

    @classmethod
    def root(cls, read: Read, meta: Meta) -> Self:
        return cls(read, meta, meta.root)

    def bucket(self, key: bytes) -> "Bucket | None":
        """The bucket inside of this name."""
        return next((value for name, value in self._items() if name == key and isinstance(value, Bucket)), None)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return next((value for name, value in self._items() if name == key and isinstance(value, bytes)), None)

    def values(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their values."""
        return ((name, value) for name, value in self._items() if isinstance(value, bytes))

    def buckets(self) -> "Iterator[tuple[bytes, Bucket]]":
        """All buckets inside, by name."""
        return ((name, value) for name, value in self._items() if isinstance(value, Bucket))

    def _items(self) -> "Iterator[tuple[bytes, bytes | Bucket]]":
        """In the order of the keys.

        Raises:
            Damaged: a page is not what it must be.
        """
        if self._inline:
            yield from self._leaf(self._inline, "inside its bucket")
            return
        seen: set[int] = set()
        left_bytes = self._meta.end * self._meta.page_size  # pages do not overlap
        waiting = [(self._page, 0)]
        while waiting:
            number, depth = waiting.pop()
            if number in seen or depth > MAX_DEPTH:
                raise Damaged(f"page {number} of the database is led to twice, or from too many others")
            seen.add(number)
            raw, flags = self._whole_page(number)
            left_bytes -= len(raw)
            if left_bytes < 0:
                raise Damaged(f"page {number} of the database overlaps others")
            if flags == _IS_LEAF:
                yield from self._leaf(raw, str(number))
            else:
                waiting += [(below, depth + 1) for below in reversed(_branch(raw, number))]

    def _whole_page(self, number: int) -> tuple[bytes, int]:
        """The bytes of a page with its overflow, and its flags."""
        size = self._meta.page_size
        if not 2 <= number < self._meta.end:
            raise Damaged(f"page {number} of the database is outside of it")
        header = self._read(number * size, _PAGE.size)
        if len(header) < _PAGE.size:
            raise Damaged(f"page {number} of the database is cut off")
        own, flags, _, overflow = _PAGE.unpack(header)
        wanted = (overflow + 1) * size
        if own != number or flags not in (_IS_BRANCH, _IS_LEAF) or wanted > MAX_PAGE_BYTES:
            raise Damaged(f"page {number} of the database is not what leads to it says")
        raw = self._read(number * size, wanted)
        if len(raw) < wanted:
            raise Damaged(f"page {number} of the database is cut off")
        return raw, flags

    def _leaf(self, raw: bytes, shown: str) -> "Iterator[tuple[bytes, bytes | Bucket]]":
        if len(raw) < _PAGE.size or _PAGE.unpack_from(raw)[1] != _IS_LEAF:
            raise Damaged(f"page {shown} of the database is no leaf")
        for at in _elements(raw, _LEAF.size, shown):
            flags, position, key_size, value_size = _LEAF.unpack_from(raw, at)
            begin = at + position
            end = begin + key_size + value_size
            if end > len(raw):
                raise Damaged(f"page {shown} of the database has an element outside of it")
            key, value = raw[begin : begin + key_size], raw[begin + key_size : end]
            yield key, self._inner(value, shown) if flags & _IS_BUCKET else value

    def _inner(self, value: bytes, shown: str) -> "Bucket":
        if len(value) < _BUCKET.size:
            raise Damaged(f"page {shown} of the database has a bucket without a header")
        page, _ = _BUCKET.unpack_from(value)
        inline = value[_BUCKET.size :]
        if page == 0 and not inline:
            raise Damaged(f"page {shown} of the database has a bucket without a page")
        return Bucket(self._read, self._meta, page, b"" if page else inline)


def _branch(raw: bytes, number: int) -> list[int]:
    return [_BRANCH.unpack_from(raw, at)[2] for at in _elements(raw, _BRANCH.size, str(number))]


def _elements(raw: bytes, size: int, shown: str) -> range:
    """Where the elements of a page begin."""
    count = _PAGE.unpack_from(raw)[2]
    end = _PAGE.size + count * size
    if end > len(raw):
        raise Damaged(f"page {shown} of the database has more elements than fit")
    return range(_PAGE.size, end, size)
