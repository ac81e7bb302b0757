"""The layer tar format as a state machine: bytes in, entries and their content out.

    parser = Parser()
    for chunk in plain_bytes:
        for event in parser.feed(chunk):      # an Entry, or a memoryview: more content of the last Entry
            ...
    parser.close()                            # Damaged if the stream stopped in the middle

Reads ustar, pax, GNU (long names, base-256 numbers, all sparse formats) and v7. An entry whose content lies in the
fed chunk carries it in `body`, which is the common case and saves an event per file; otherwise `body` is None and
memoryviews follow until `stored` bytes have come. Owner names are ignored, numbers count. Global pax headers are
skipped, as the Go archive reader of other runtimes does. Sizes are never negative, every step consumes a block or
ends, nothing larger than `pax.MAX_HEADER_BYTES` is held, and headers that make no file are counted (`MAX_RECORDS`).

Source: POSIX.1-2017, pax, ustar Interchange Format; GNU tar manual, Basic Tar Format; OCI image-spec, layer.md.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from criollo.errors import Damaged
from criollo.workers.messages import MAX_ENTRIES
from criollo.workers.pax import (
    MAX_HEADER_BYTES,
    MAX_SPARSE_REGIONS,
    Region,
    parse_decimal,
    parse_records,
    parse_time,
    sparse_map_of,
    sparse_regions,
)

BLOCK: Final = 512
MAX_PATH_BYTES: Final = 4096
MAX_RECORDS: Final = 4 * MAX_ENTRIES

FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_KINDS: Final = {b"\0": FILE, b"7": FILE, **{kind: kind for kind in (FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO)}}
_PAX, _PAX_GLOBAL, _SOLARIS_PAX, _LONG_NAME, _LONG_LINK = b"x", b"g", b"X", b"L", b"K"
_GNU_SPARSE, _GNU_VOLUME, _GNU_DUMPDIR = b"S", b"V", b"D"
_HEADER: Final = struct.Struct("100s24s12s12s8sc100s8s64x8s8s155s12x")  # mode, uid and gid are one field: they repeat together
_unpack: Final = _HEADER.unpack
_DEVICES: Final = (CHAR, BLOCK_DEVICE)
_ZEROS: Final = bytes(BLOCK)
_NOTHING: Final = memoryview(b"")
_XATTR: Final = b"SCHILY.xattr."
_MAX_ID: Final = (1 << 32) - 2  # -1 means "leave as it is" to chown(2)


class Entry(msgspec.Struct, gc=False):
    """One member of a layer: `name` and `link` as written, times in ns, `stored` the bytes it has in the stream."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    stored: int
    mtime_ns: int
    link: bytes
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[Region, ...] | None = None
    size: int = 0
    body: memoryview | None = None


class Parser:
    """One layer's bytes, in any split; see the module."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_records: int = MAX_RECORDS) -> None:
        self.entries = 0
        self._records_left = self._max_records = max_records
        self.spans: list[tuple[int, int]] = []  # where content lies in the chunk that was fed last: start and end
        self._max_entries = max_entries
        self._left = 0  # content bytes of the last entry still to come
        self._skip = 0  # padding, and content that nobody wants
        self._head = bytearray()  # a header cut by the end of a chunk
        self._held = bytearray()  # content of an extension header, or a sparse map
        self._wanted = 0  # how long `_held` has to become
        self._waiting: Entry | None = None  # the sparse file whose map is being read
        self._extension = b""
        self._records: list[tuple[bytes, bytes]] = []
        self._long_name = self._long_link = b""
        self._zero_blocks = 0

    def feed(self, chunk: bytes) -> Iterator[Entry | memoryview]:
        """The events of the next bytes. Exhaust it before the next call. Raises Damaged for a shape that is refused."""
        view, at, end = memoryview(chunk), 0, len(chunk)
        self.spans.clear()
        while at < end:
            if self._left:
                piece = view[at : at + self._left]
                self.spans.append((at, at + len(piece)))
                at += len(piece)
                self._left -= len(piece)
                yield piece
            elif self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
            elif self._zero_blocks > 1:
                return  # what follows the end of the archive counts for the digest only
            elif self._wanted:
                step = min(self._wanted - len(self._held), end - at)
                self._held += view[at : at + step]
                at += step
                if len(self._held) == self._wanted and (entry := self._extended()) is not None:
                    at = self._attach(entry, view, at)
                    yield entry
            else:
                if self._head or end - at < BLOCK:
                    step = min(BLOCK - len(self._head), end - at)
                    self._head += view[at : at + step]
                    at += step
                    if len(self._head) < BLOCK:
                        return
                    found = self._header(memoryview(bytes(self._head)))
                    self._head.clear()
                else:
                    found = self._header(view[at : at + BLOCK])
                    at += BLOCK
                if found is not None:
                    at = self._attach(found, view, at)
                    yield found

    def pass_over(self, count: int) -> None:
        """Content of the last entry that is not fed, because the caller knows it. Raises Damaged when it has not as much."""
        if count > self._left:
            raise self._damaged(f"it has {self._left} bytes of content, not {count}")
        self._left -= count

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            Damaged: an entry, a header or an extension is incomplete.
        """
        if self._left or self._skip >= BLOCK or self._head or self._wanted or self._waiting:
            raise self._damaged("the stream ends in the middle of it")
        if self._records or self._long_name or self._long_link:
            raise self._damaged("the stream ends after an extension header")

    def _attach(self, entry: Entry, view: memoryview, at: int) -> int:
        """Give the entry its content if all of it is here; returns where the next header begins."""
        stored = entry.stored
        if not stored:
            entry.body = _NOTHING  # a slice, even an empty one, would keep the chunk alive
            return at
        after = at + stored
        if after > len(view):
            self._left = stored
            self._skip += -stored % BLOCK
            return at
        entry.body = view[at:after]
        self.spans.append((at, after))
        padded = after + -stored % BLOCK
        if padded <= len(view):
            return padded
        self._skip += padded - len(view)
        return len(view)

    def _header(self, block: memoryview) -> Entry | None:
        """Read a header block; None if it is no entry by itself."""
        name, ids, size, mtime, checksum, kind, link, magic, major, minor, prefix = _unpack(block)
        # The low half of Adler-32 is 1 + the sum of all bytes modulo 65521: a checksum at the speed of C.
        total = zlib.adler32(block) & 0xFFFF
        if total == 1 and block == _ZEROS:
            self._zero_blocks += 1
            return None
        self.entries += 1
        if self._zero_blocks:
            raise self._damaged("it follows a block of zeros, which ends an archive")
        if self.entries > self._max_entries:
            raise self._damaged(f"a layer may have {self._max_entries} entries")
        if ((_SUMS.get(checksum) or self._sum(checksum)) - total) % 65521:
            raise self._damaged("the checksum of its header is wrong")
        stored = _NUMBERS.get(size)
        if stored is None:
            stored = self._number(size, "size")
        known = _KINDS.get(kind)
        if known is None and kind != _GNU_SPARSE:
            self._extension_header(kind, stored)
            return None
        name = name.partition(b"\0")[0]
        if prefix[0] and magic == b"ustar\x0000":
            name = prefix.partition(b"\0")[0] + b"/" + name
        mode, uid, gid = _OWNERS.get(ids) or self._owner(ids)
        seconds = _NUMBERS.get(mtime)
        if seconds is None:
            seconds = self._number(mtime, "mtime", signed=True)
        link = link.partition(b"\0")[0] if link[0] else b""
        entry = Entry(name, known or FILE, mode, uid, gid, stored, seconds * 1_000_000_000, link)
        if kind in _DEVICES:
            entry.major, entry.minor = self._number(major, "device"), self._number(minor, "device")
        if self._long_name or self._long_link or self._records:
            self._apply_extensions(entry)
        self._settle(entry)
        if kind == _GNU_SPARSE:
            return self._old_sparse(entry, bytes(block))
        return None if self._waiting else entry

    def _sum(self, checksum: bytes) -> int:
        """The low half of the header's Adler-32 by what it says itself: its own field counts as spaces there."""
        said = self._parsed(checksum, "checksum") + sum(checksum) - 8 * 32 + 1
        if len(_SUMS) < _MAX_NUMBERS:
            _SUMS[checksum] = said
        return said

    def _owner(self, ids: bytes) -> tuple[int, int, int]:
        """Mode, uid and gid."""
        fields = self._parsed(ids[:8], "mode"), self._parsed(ids[8:16], "uid"), self._parsed(ids[16:], "gid")
        owner = fields[0] & 0o7777, fields[1], fields[2]
        if len(_OWNERS) < _MAX_NUMBERS:
            _OWNERS[ids] = owner
        return owner

    def _settle(self, entry: Entry) -> None:
        """The rules that hold for the final values of every entry."""
        entry.size = entry.size or entry.stored
        if entry.kind == FILE:
            if entry.name.endswith(b"/"):  # v7 has no type for directories
                entry.kind, entry.stored, self._skip = DIRECTORY, 0, entry.stored + -entry.stored % BLOCK
        else:
            entry.stored = entry.size = 0  # links and devices may state the size of what they stand for
        if len(entry.name) > MAX_PATH_BYTES or len(entry.link) > MAX_PATH_BYTES:
            raise self._damaged(f"its name or link is longer than {MAX_PATH_BYTES} bytes", entry.name)
        if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
            raise self._damaged(f"owner {entry.uid}:{entry.gid} is out of range (0 to {_MAX_ID})", entry.name)
        if entry.size >= 1 << 63 or entry.stored >= 1 << 62:
            raise self._damaged(f"its size is {entry.size}", entry.name)

    def _extension_header(self, kind: bytes, size: int) -> None:
        if kind in (_PAX, _SOLARIS_PAX, _LONG_NAME, _LONG_LINK):
            if size > MAX_HEADER_BYTES:
                raise self._damaged(f"its extension header has {size} bytes, the limit is {MAX_HEADER_BYTES}")
            self._extension, self._wanted = kind, size + -size % BLOCK
            self._held.clear()
            self._held_size = size
            if not size:
                self._extended()
        elif kind in (_PAX_GLOBAL, _GNU_VOLUME):
            self._skip = size + -size % BLOCK
        else:
            raise self._damaged(f"its type is {kind!a}, which no layer may have")

    def _extended(self) -> Entry | None:
        """All wanted bytes are held: an extension for the next entry, or (a part of) a sparse map."""
        if self._waiting is not None:
            return self._old_sparse_more() if self._extension == _GNU_SPARSE else self._new_sparse_more()
        content = bytes(self._held[: self._held_size])
        self._wanted = 0
        self.entries -= 1  # it belongs to the entry after it
        try:
            if self._extension == _LONG_NAME:
                self._long_name = content.partition(b"\0")[0]
            elif self._extension == _LONG_LINK:
                self._long_link = content.partition(b"\0")[0]
            else:
                self._records = parse_records(content)
            self._spend(1 + len(self._records))
        except Damaged as error:
            raise self._damaged(str(error)) from None
        return None

    def _spend(self, count: int) -> None:
        """Count what costs time but makes no file: a few megabytes on the wire can hold billions of these."""
        self._records_left -= count
        if self._records_left < 0:
            raise Damaged(f"a layer may have {self._max_records} extension records and sparse map numbers")

    def _apply_extensions(self, entry: Entry) -> None:
        entry.name = self._long_name or entry.name
        entry.link = self._long_link or entry.link
        records, self._records, self._long_name, self._long_link = self._records, [], b"", b""
        if not records:
            return
        try:
            self._apply_records(entry, records)
        except Damaged as error:
            raise self._damaged(str(error), entry.name) from None

    def _apply_records(self, entry: Entry, records: list[tuple[bytes, bytes]]) -> None:
        xattrs = {}
        latest = dict(records)
        for key, value in latest.items():
            if key.startswith(_XATTR):
                xattrs[key[len(_XATTR) :]] = value
            elif value and (apply := _PAX_KEYS.get(key)) is not None:
                apply(entry, value)
        entry.xattrs = tuple(xattrs.items())
        entry.name = latest.get(b"GNU.sparse.name") or entry.name  # its header has a made-up name
        if b"\0" in entry.name or b"\0" in entry.link:
            raise Damaged("a name has a NUL byte")
        if entry.kind != FILE:
            return
        real = latest.get(b"GNU.sparse.realsize") or latest.get(b"GNU.sparse.size")
        if latest.get(b"GNU.sparse.major") == b"1" and latest.get(b"GNU.sparse.minor") == b"0":
            entry.size = parse_decimal(real or b"", "sparse file size")
            self._waiting, self._extension, self._wanted, self._lines = entry, b"", BLOCK, 0
            self._held.clear()
        elif (numbers := sparse_map_of(records)) is not None:
            entry.size = parse_decimal(real or b"", "sparse file size")
            self._set_sparse(entry, numbers)

    def _set_sparse(self, entry: Entry, numbers: list[int]) -> None:
        self._spend(len(numbers))
        entry.sparse = sparse_regions(numbers, entry.size)
        content = sum(length for _, length in entry.sparse)
        if content != entry.stored:
            raise Damaged(f"sparse map: its regions have {content} bytes, the archive has {entry.stored}")

    def _old_sparse(self, entry: Entry, block: bytes) -> Entry | None:
        """GNU's own sparse header: four regions here, more in blocks that follow while a flag says so."""
        entry.size = self._number(block[483:495], "size")
        self._numbers: list[int] = []
        self._waiting, self._extension = entry, _GNU_SPARSE
        return self._old_sparse_regions(block[386:482], more=block[482] != 0)

    def _old_sparse_more(self) -> Entry | None:
        block = bytes(self._held)
        return self._old_sparse_regions(block[:504], more=block[504] != 0)

    def _old_sparse_regions(self, fields: bytes, *, more: bool) -> Entry | None:
        for start in range(0, len(fields), 24):
            offset, length = fields[start : start + 12], fields[start + 12 : start + 24]
            if not offset[0]:
                break
            self._numbers += (self._number(offset, "sparse map number"), self._number(length, "sparse map number"))
        if len(self._numbers) > 2 * MAX_SPARSE_REGIONS:
            raise self._damaged(f"its sparse map has more than {MAX_SPARSE_REGIONS} regions")
        if more:
            self._held.clear()
            self._wanted = BLOCK
            return None
        return self._sparse_done(self._numbers)

    def _new_sparse_more(self) -> Entry | None:
        """GNU sparse 1.0: the map precedes the content, as decimal lines in whole blocks: count, offset, length, …"""
        waiting, held = self._waiting, self._held
        assert waiting is not None
        self._lines += held.count(b"\n", len(held) - BLOCK)
        try:
            count = parse_decimal(bytes(held[: max(0, held.find(b"\n", 0, 20))]), "sparse map size")
            if count > MAX_SPARSE_REGIONS or len(held) > min(waiting.stored, MAX_HEADER_BYTES):
                raise Damaged(f"sparse map: {count} regions in {waiting.stored} bytes; the limit is {MAX_SPARSE_REGIONS}")
            if self._lines <= 2 * count:
                self._wanted = len(held) + BLOCK
                return None
            lines = bytes(held).split(b"\n", 2 * count + 1)[1 : 2 * count + 1]
            numbers = [parse_decimal(line, "sparse map number") for line in lines]
        except Damaged as error:
            raise self._damaged(str(error), waiting.name) from None
        waiting.stored -= len(held)
        return self._sparse_done(numbers)

    def _sparse_done(self, numbers: list[int]) -> Entry:
        entry, self._waiting, self._wanted = self._waiting, None, 0
        assert entry is not None
        try:
            self._set_sparse(entry, numbers)
        except Damaged as error:
            raise self._damaged(str(error), entry.name) from None
        return entry

    def _number(self, field: bytes, what: str, *, signed: bool = False) -> int:
        """A numeric header field, perhaps one that has been seen before."""
        number = _NUMBERS.get(field)
        if number is None:
            number = self._parsed(field, what, signed=signed)
            if number >= 0 and len(_NUMBERS) < _MAX_NUMBERS:  # a negative time must not become a size that reads the same
                _NUMBERS[field] = number
        return number

    def _parsed(self, field: bytes, what: str, *, signed: bool = False) -> int:
        """The number of a field: octal digits ended by space or NUL, or base-256 when the top bit is set."""
        if field[0] & 0x80:
            width = 8 * len(field) - 1
            number = int.from_bytes(field, "big") & ((1 << width) - 1)
            if number >> (width - 1):
                number -= 1 << width
        else:
            digits = field.partition(b"\0")[0].strip(b" ")
            if digits and not (digits.isdigit() and digits.translate(None, b"01234567") == b""):
                raise self._damaged(f"its {what} is {digits!a}, not an octal number")
            number = int(digits, 8) if digits else 0
        if number < 0 and not signed:
            raise self._damaged(f"its {what} is negative ({number})")
        if abs(number) >= 1 << 63:
            raise self._damaged(f"its {what} is out of range")
        return number

    def _damaged(self, why: str, name: bytes = b"") -> Damaged:
        return Damaged(f"layer entry {self.entries}{f' ({show_name(name)})' if name else ''}: {why}")


_NUMBERS: dict[bytes, int] = {}  # times and small sizes repeat in most headers
_OWNERS: dict[bytes, tuple[int, int, int]] = {}  # mode, uid and gid together do so still more
_SUMS: dict[bytes, int] = {}  # so do checksums
_MAX_NUMBERS: Final = 4096


def _set_name(entry: Entry, value: bytes) -> None:
    entry.name = value


def _set_link(entry: Entry, value: bytes) -> None:
    entry.link = value


def _set_size(entry: Entry, value: bytes) -> None:
    entry.stored = parse_decimal(value, "size")


def _set_uid(entry: Entry, value: bytes) -> None:
    entry.uid = parse_decimal(value, "uid")


def _set_gid(entry: Entry, value: bytes) -> None:
    entry.gid = parse_decimal(value, "gid")


def _set_mtime(entry: Entry, value: bytes) -> None:
    entry.mtime_ns = parse_time(value)


_PAX_KEYS: Final = {
    b"path": _set_name,
    b"linkpath": _set_link,
    b"size": _set_size,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
}


def show_name(name: bytes) -> str:
    """A name from an archive, fit for a message: control characters escaped, length bounded."""
    text = name[:200].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
