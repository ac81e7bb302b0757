"""Records of pax extended headers, and sparse maps: bytes in, values out.

A record is `<length> <key>=<value>\\n`, where the length counts the whole record in decimal. Nothing here is taken on
trust: a length of zero, a wrong one or one beyond the header is an error, so every step consumes at least five bytes.
A sparse map lists the regions of a file that have bytes; it must be ordered, without overlap and inside the size.

Source: POSIX.1-2017, pax, section Extended Header; GNU tar manual, section Sparse Formats.
"""

from typing import Final

from criollo.errors import Damaged

MAX_HEADER_BYTES: Final = 1 << 20
MAX_SPARSE_REGIONS: Final = 65536

Region = tuple[int, int]  # offset, length


def parse_records(header: bytes) -> list[tuple[bytes, bytes]]:
    """The key-value pairs of one extended header, in order; keys may repeat (GNU sparse 0.0 does).

    Raises:
        Damaged: a record's length, separator or end is wrong.
    """
    records = []
    at, end = 0, len(header)
    while at < end:
        space = header.find(b" ", at, at + 8)
        digits = header[at:space] if space > at else b""
        if not digits.isdigit():
            raise Damaged("pax header: a record does not start with its length")
        stop = at + int(digits)
        if stop > end or stop <= space + 2 or header[stop - 1] != 0x0A:
            raise Damaged(f"pax header: a record says it has {int(digits)} bytes, which is not where it ends")
        key, equals, value = header[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise Damaged("pax header: a record has no key")
        records.append((key, value))
        at = stop
    return records


def parse_time(value: bytes) -> int:
    """A pax time (`seconds[.fraction]`, may be negative) in ns; digits beyond ns are cut off.

    Raises:
        Damaged: not a plain decimal number (`nan`, exponents, other digits).
    """
    negative = value.startswith(b"-")
    whole, dot, fraction = (value[1:] if negative else value).partition(b".")
    if not whole.isdigit() or len(whole) > 18 or (dot and fraction and not fraction.isdigit()):
        raise Damaged(f"pax header: {value[:40]!a} is no time")
    ns = int(whole) * 1_000_000_000 + int((fraction[:9] or b"0").ljust(9, b"0"))
    return -ns if negative else ns


def parse_decimal(value: bytes, what: str) -> int:
    """A non-negative decimal number of at most 63 bits.

    Raises:
        Damaged: anything else: signs, spaces, other digits, too large.
    """
    if not value.isdigit() or len(value) > 19 or (number := int(value)) >= 1 << 63:
        raise Damaged(f"pax header: {value[:40]!a} is no {what}")
    return number


def sparse_regions(numbers: list[int], size: int) -> tuple[Region, ...]:
    """Pair up and check the numbers of a sparse map (offset, length, offset, length …) of a file of `size` bytes.

    Raises:
        Damaged: odd count, too many regions, out of order, overlap, beyond the size.
    """
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SPARSE_REGIONS:
        raise Damaged(f"sparse map: {len(numbers)} numbers; it takes pairs, at most {MAX_SPARSE_REGIONS} of them")
    regions = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    last = 0
    for offset, length in regions:
        if offset < last or length < 0 or offset + length > size:
            raise Damaged(f"sparse map: the region at {offset} of {length} bytes overlaps or leaves the file of {size} bytes")
        last = offset + length
    return regions


def sparse_map_of(records: list[tuple[bytes, bytes]]) -> list[int] | None:
    """The numbers of a sparse map kept in pax records (GNU formats 0.0 and 0.1), None when there is none."""
    numbers: list[int] = []
    found = False
    for key, value in records:
        if key == b"GNU.sparse.map":
            found = True
            if value.count(b",") > 2 * MAX_SPARSE_REGIONS:
                raise Damaged(f"sparse map: more than {MAX_SPARSE_REGIONS} regions")
            numbers = [parse_decimal(part, "sparse map number") for part in value.split(b",")] if value else []
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            found = True
            numbers.append(parse_decimal(value, "sparse map number"))
    return numbers if found else None
