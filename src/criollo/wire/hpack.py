"""HPACK: header fields of HTTP/2 as bytes.

    fields = Decoder(list_bytes=64 << 10).decode(block)      # one decoder for all blocks of a connection, in order
    block = encode([(":status", "200")])                     # keeps no state: any connection may send it at any time

Text is Latin-1 both ways, so no byte is an error here: what a name or value may hold is judged in `http2_fields`.
Source: RFC 7541.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from criollo.wire import hpack_huffman

Field = tuple[str, str]
Fields = tuple[Field, ...]

TABLE_BYTES: Final = 4096  # what both sides start with, RFC 9113, section 6.5.2
FIELD_OVERHEAD: Final = 32  # what a field counts beside its text, section 4.1
NO_TABLE: Final = b"\x20"  # the update of the table's size to 0, for a peer that wants less than `TABLE_BYTES`
_INTEGER_OCTETS: Final = 5  # after the prefix: no length we take needs more than 32 bits
_KEPT_BLOCKS, _KEPT_BLOCK_BYTES = 32, 1024

_WORDS: Final = """:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200
:status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding
content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match
if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate
proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent
vary|via|www-authenticate"""
STATIC: Final[Fields] = tuple(  # appendix A
    (name, value) for name, _, value in (word.partition(" ") for word in _WORDS.replace("\n", "|").split("|"))
)
_INDEX: Final = {field: number for number, field in enumerate(STATIC, 1)}
_NAME_INDEX: Final = {name: number for number, (name, _) in reversed(list(enumerate(STATIC, 1)))}


class BadBlock(ValueError):
    """A block that cannot be decoded: the two tables are no longer the same, so the connection is lost."""


class TooLarge(ValueError):
    """Decoding was given up at the limit of the list: the connection is lost likewise."""


class Decoder:
    """The receiving end of one connection's header compression."""

    def __init__(self, *, list_bytes: int) -> None:
        self._list_bytes = list_bytes
        self._table: deque[Field] = deque()
        self._table_bytes, self._table_limit = 0, TABLE_BYTES
        self._kept: dict[bytes, Fields] = {}  # blocks that mean the same until the table changes: clients repeat themselves

    def decode(self, block: bytes) -> Fields:
        """The fields of one whole block. The very same object may be given again for the same block.

        Raises BadBlock and TooLarge, after which the decoder is of no use.
        """
        known = self._kept.get(block)
        if known is not None:
            return known
        changes = False
        fields: list[Field] = []
        at, end, room = 0, len(block), self._list_bytes
        while at < end:
            first = block[at]
            if first & 0x80:
                number, at = (first & 0x7F, at + 1) if first != 0xFF else _integer(block, at, 7)
                field = self._indexed(number)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise BadBlock("the table's size changes within a block")
                at, changes = self._resize(block, at), True
                continue
            else:
                field, at = self._literal(block, at, room)
                if first & 0x40:
                    self._insert(field)
                    changes = True
            room -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD
            if room < 0:
                raise TooLarge(f"the header list has more than {self._list_bytes} bytes")
            fields.append(field)
        found = tuple(fields)
        self._keep(block, found, changes=changes)
        return found

    def _keep(self, block: bytes, fields: Fields, *, changes: bool) -> None:
        if changes:
            self._kept.clear()
        elif len(block) <= _KEPT_BLOCK_BYTES:
            if len(self._kept) >= _KEPT_BLOCKS:
                self._kept.clear()
            self._kept[block] = fields

    def _indexed(self, number: int) -> Field:
        if 0 < number <= len(STATIC):
            return STATIC[number - 1]
        if len(STATIC) < number <= len(STATIC) + len(self._table):
            return self._table[number - len(STATIC) - 1]
        raise BadBlock(f"there is no field {number} in the tables")

    def _literal(self, block: bytes, at: int, room: int) -> tuple[Field, int]:
        """A field with its value, or with its name too, written out; where it ends."""
        number, at = _integer(block, at, 6 if block[at] & 0x40 else 4)
        if number:
            name = self._indexed(number)[0]
        else:
            name, at = _string(block, at, room)
        value, at = _string(block, at, room)
        return (name, value), at

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        self._table_bytes += size
        self._table.appendleft(field)
        self._evict()

    def _resize(self, block: bytes, at: int) -> int:
        size, at = _integer(block, at, 5)
        if size > TABLE_BYTES:
            raise BadBlock(f"the table is made {size} bytes large, {TABLE_BYTES} are allowed")
        self._table_limit = size
        self._evict()
        return at

    def _evict(self) -> None:
        while self._table_bytes > self._table_limit:
            name, value = self._table.pop()
            self._table_bytes -= len(name) + len(value) + FIELD_OVERHEAD


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """The integer that begins in the low `bits` of the octet at `at`; where it ends. Source: section 5.1."""
    full = (1 << bits) - 1
    value = block[at] & full
    at += 1
    if value < full:
        return value, at
    for shift, octet in enumerate(block[at : at + _INTEGER_OCTETS]):
        value += (octet & 0x7F) << (7 * shift)
        if octet < 0x80:
            return value, at + shift + 1
    raise BadBlock("an integer does not end")


def _string(block: bytes, at: int, room: int) -> tuple[str, int]:
    if at >= len(block):
        raise BadBlock("the block ends within a field")
    is_coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    if length > room:
        raise TooLarge(f"a header field of {length} bytes is over the limit of the list")
    text, end = block[at : at + length], at + length
    if end > len(block):
        raise BadBlock("the block ends within a string")
    if is_coded:
        try:
            text = hpack_huffman.decode(text)
        except hpack_huffman.BadCode as error:
            raise BadBlock(str(error)) from error
    return text.decode("latin-1"), end


def encode(fields: Iterable[Field]) -> bytes:
    """A block of these fields that adds nothing to the peer's table. Names are in lower case already."""
    return b"".join(map(_encoded, fields))


def _encoded(field: Field) -> bytes:
    number = _INDEX.get(field)
    if number is not None:
        return bytes((0x80 | number,))
    name, value = field
    index = _NAME_INDEX.get(name, 0)
    begun = _prefixed(index, 4)
    return begun + (b"" if index else _written(name)) + _written(value)


def _written(text: str) -> bytes:
    octets = text.encode("latin-1")
    return _prefixed(len(octets), 7) + octets


def _prefixed(value: int, bits: int) -> bytes:
    full = (1 << bits) - 1
    if value < full:
        return bytes((value,))
    octets = bytearray((full,))
    value -= full
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
