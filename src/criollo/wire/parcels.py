"""How files travel between kpod and the daemon, once a connection has been upgraded: parcels both ways, bytes ↔ events.

    kind (1 byte)   length (4 bytes, big-endian)   that many bytes

`DATA` is a piece of a tar; `END` says that all of it has come, with what was counted as JSON; `FAILED` says in words why
it has not. After `END` or `FAILED` the sender sends no more. A connection that ends without one of them was cut.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from criollo.errors import Damaged

PROTOCOL: Final = "criollo-files"  # the word of the upgrade
MAX_BYTES: Final = 1 << 20

_HEAD: Final = struct.Struct("!BI")


class ParcelKind(IntEnum):
    """What a parcel is."""

    DATA = 0
    END = 1
    FAILED = 2


class Parcel(NamedTuple):
    """A piece of what travels."""

    kind: ParcelKind
    content: bytes


def head(kind: ParcelKind, size: int) -> bytes:
    """What precedes the content of a parcel, which has at most `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise ValueError(f"a parcel has at most {MAX_BYTES} bytes")
    return _HEAD.pack(kind, size)


def encode(kind: ParcelKind, content: bytes) -> bytes:
    """A whole parcel."""
    return head(kind, len(content)) + content


class Unpacker:
    """Bytes in any split → parcels."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_over = False

    def feed(self, chunk: bytes) -> Iterator[Parcel]:
        """The parcels that are whole now. Exhaust it before the next call.

        Raises:
            Damaged: an unknown kind, an over-long parcel, or anything after the last one.
        """
        self._held += chunk
        at = 0
        try:
            while len(self._held) - at >= _HEAD.size:
                number, size = _HEAD.unpack_from(self._held, at)
                if self._is_over or number not in _KINDS or size > MAX_BYTES:
                    raise Damaged(f"a parcel of kind {number} with {size} bytes, which cannot be here")
                if len(self._held) - at - _HEAD.size < size:
                    break
                start = at + _HEAD.size
                at = start + size
                self._is_over = number != ParcelKind.DATA
                with memoryview(self._held) as view:
                    content = bytes(view[start:at])
                yield Parcel(ParcelKind(number), content)
            if self._is_over and len(self._held) > at:
                raise Damaged("bytes after the last parcel")
        finally:
            del self._held[:at]


_KINDS: Final = frozenset(ParcelKind)
