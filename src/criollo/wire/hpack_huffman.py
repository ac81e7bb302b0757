"""Huffman coded strings of HPACK, read.

The code is canonical: codes of one length are in the order of their symbols, and a longer code is a greater number when both
are filled up to the longest. So the lengths alone say it, and a symbol is found by bisection. We write nothing coded.
Source: RFC 7541, section 5.2 and appendix B.
"""

from bisect import bisect_right
from typing import Final

LENGTHS: Final = bytes.fromhex(  # in bits, of the codes of the octets 0-255 and of the end mark
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505"
    "050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605"
    "06050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817"
    "1717171516171617171816151416161717151716161815161717151516151716171714161616171616171a1a141316171619"
    "1a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c"
    "1b1b1b1b1b1a1e"
)
_LONGEST: Final = 30
_MASK: Final = (1 << _LONGEST) - 1
_REFILL: Final = 16  # octets: keeps the number that is shifted about short


class BadCode(ValueError):
    """A coded string that no encoder makes."""


def _code() -> tuple[list[int], list[tuple[int, int]]]:
    """Codes in order, each filled up with zeros to the longest, and (octet, length) of each."""
    starts, symbols, code = [], [], 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(LENGTHS)):
        starts.append(code)
        symbols.append((symbol, length))
        code += 1 << (_LONGEST - length)
    return starts, symbols


_STARTS, _SYMBOLS = _code()


def decode(coded: bytes) -> bytes:
    """The octets of a coded string. Raises BadCode."""
    found = bytearray()
    left = 8 * len(coded)  # bits not yet decoded; those of them that `window` has are its lowest `held`
    window = held = at = 0
    try:
        while True:
            if held < _LONGEST:
                more = coded[at : at + _REFILL].ljust(_REFILL, b"\xff")  # ones after the end: padding is of ones
                at += _REFILL
                window = (window & ((1 << held) - 1)) << (8 * _REFILL) | int.from_bytes(more, "big")
                held += 8 * _REFILL
            symbol, length = _SYMBOLS[bisect_right(_STARTS, (window >> (held - _LONGEST)) & _MASK) - 1]
            if length > left:
                break
            found.append(symbol)
            held -= length
            left -= length
    except ValueError as error:  # the end mark is no octet
        raise BadCode("the end mark stands within a coded string") from error
    if left > 7 or (window >> (held - left)) & ((1 << left) - 1) != (1 << left) - 1:
        raise BadCode("a coded string has wrong padding")
    return bytes(found)
