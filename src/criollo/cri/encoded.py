"""Items of lists as bytes, kept from one list to the next.

kubelet lists every pod and container each second, and making their messages anew is most of such a call. Records are frozen,
and another one takes their place when something changes: so one and the same record always gives the same bytes. Messages
written one after the other are one message with the repeated fields of all, so a list is its items' bytes, joined.
"""

from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

KEPT: Final = 2000  # of about 700 bytes
_LENGTH_DELIMITED: Final = 2  # wire type


class _Record(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_Record)


class Encoded(Generic[R]):
    """Lists of one kind; `write` makes a list message of one record."""

    def __init__(self, write: Callable[[R], Message]) -> None:
        self._write = write
        self._kept: dict[str, tuple[R, bytes]] = {}

    def of(self, records: Iterable[R]) -> bytes:
        """The list message of these records."""
        return b"".join(map(self.item, records))

    def item(self, record: R) -> bytes:
        """The message of this record."""
        known = self._kept.get(record.id)
        if known is not None and known[0] is record:
            return known[1]
        item = self._write(record).SerializeToString()
        if known is None and len(self._kept) >= KEPT:
            self._kept.clear()  # mostly of objects that are gone; who is still there is back after one list
        self._kept[record.id] = record, item
        return item


def nested(field_number: int, message: bytes) -> bytes:
    """An encoded message as a field of the one around it."""
    return _varint(field_number << 3 | _LENGTH_DELIMITED) + _varint(len(message)) + message


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
