"""Shares of caches and memory bandwidth: from what a class file says to the schemata of resctrl. Pure.

A partition has a share of the whole, a class one of its partition. Shares of caches are runs of bits: a percentage counts from
the lowest bit, partitions by percentage lie side by side, and no two partitions overlap.
Source: kernel, Documentation/filesystems/resctrl.rst.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from criollo.errors import Invalid
from criollo.linux.resctrl import Bandwidth, Cache
from criollo.specgen import cpus

_PERCENT: Final = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,3})%")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
Allocation = Mapping[str, Any] | None
_HALVES: Final = {"CODE": "code", "DATA": "data"}


def partition_masks(
    allocations: Mapping[str, Allocation], name: str, cache: Cache, cache_id: int, *, field: str
) -> dict[str, int]:
    """The bits of each partition in one cache; all of them for one without an allocation.

    Raises:
        Invalid: more than the whole, too little, or two partitions overlap.
    """
    found: dict[str, int] = {}
    start, taken = 0, 0
    for partition, allocation in allocations.items():
        where = f"{field}.{partition}"
        share = said(allocation, cache_id, name)
        if share is None:
            found[partition] = cache.mask
            continue
        if (match := _PERCENT.fullmatch(share)) and match[1] is None:
            share, start = f"{start}-{start + int(match[2])}%", start + int(match[2])
        mask = found[partition] = bits(share, cache.mask, cache.min_bits, field=where)
        if mask & taken:
            raise Invalid(where, share, f"bits of {name} that no other partition has")
        taken |= mask
    return found


def bits(share: str, base: int, min_bits: int, *, field: str) -> int:
    """A share of the bits `base`, as bits.

    Raises:
        Invalid: outside of the base, not in one piece, or fewer than the hardware takes.
    """
    low = (base & -base).bit_length() - 1
    width = base.bit_count()
    if match := _PERCENT.fullmatch(share):
        first, last = int(match[1] or 0), int(match[2])
        if not first < last <= 100:
            raise Invalid(field, share, "a share of more than nothing, and at most 100%")
        begin, end = first * width // 100, last * width // 100
        end = min(max(end, begin + min_bits), width)
        begin = min(begin, end - min_bits)
        mask = ((1 << (end - begin)) - 1) << begin
    elif _HEX.fullmatch(share):
        mask = int(share, 16)
    else:
        mask = sum(1 << bit for bit in cpus.parse(share, field) if bit < 64)
    in_one_piece = bin(mask).strip("0b").count("0") == 0
    if not mask or not in_one_piece or mask >> width or mask.bit_count() < min_bits:
        raise Invalid(field, share, f"at least {min_bits} and at most {width} bits, side by side")
    return mask << low


def bandwidth(partition: Allocation, own: Allocation, node: Bandwidth, one: int) -> int:
    """The share of one controller of memory bandwidth, rounded up to what the hardware can."""
    whole = _rate(partition, one, node)
    share = _rate(own, one, node)
    if node.in_mbps:
        known = [rate for rate in (whole, share) if rate is not None]
        return min(known) if known else (1 << 32) - 1
    percent = (100 if whole is None else whole) * (100 if share is None else share)
    return min(max(-(-percent // (100 * node.step)) * node.step, node.least), 100)


def said(allocation: Allocation, one: int, name: str) -> str | None:
    """What an allocation says of one cache: by its id, else `all`; its half of code or data, where they are apart."""
    share = _of(allocation, one)
    if isinstance(share, dict):
        half = next((word for end, word in _HALVES.items() if name.endswith(end)), "unified")
        share = share.get(half, share.get("unified"))
    return None if share is None else str(share)


def _rate(allocation: Allocation, one: int, node: Bandwidth) -> int | None:
    given = _of(allocation, one)
    unit = "MBps" if node.in_mbps else "%"
    for text in given if isinstance(given, list) else [given]:
        if isinstance(text, str) and text.endswith(unit):
            return int(text.removesuffix(unit))
    return None


def _of(allocation: Allocation, one: int) -> Any:
    for key, share in _by_id(allocation):
        if one in key:
            return share
    return (allocation or {}).get("all")


def _by_id(allocation: Allocation) -> Iterator[tuple[frozenset[int], Any]]:
    for key, share in (allocation or {}).items():
        if key != "all":
            yield cpus.parse(key, "cache id"), share
