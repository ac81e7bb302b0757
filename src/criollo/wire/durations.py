"""Lengths of time as people write them.

Source: Go's time.ParseDuration, which CRI-O and containerd read them with.
"""

import re
from typing import Final

_MOST_NS: Final = (1 << 63) - 1  # 292 years
_MOST_CHARACTERS: Final = 255
_UNITS_NS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"  # 1, 1., 1.5, .5
_PART: Final = re.compile(rf"({_NUMBER})({'|'.join(_UNITS_NS)})", re.ASCII)
_WHOLE: Final = re.compile(rf"([+-]?)(0|(?:{_NUMBER}(?:{'|'.join(_UNITS_NS)}))+)", re.ASCII)


def parse_seconds(text: str) -> float | None:
    """The length in seconds: `90s`, `1m30s`, `.5s`, `+250ms`, `0`. None: not of this form, below nothing, or over 292 years.

    All that Go takes is taken, but for lengths below nothing, which mean nothing wherever we ask for one.
    """
    match = _WHOLE.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if match is None:
        return None
    total_ns = sum(_ns(number, _UNITS_NS[unit]) for number, unit in _PART.findall(match[2]))
    if total_ns > _MOST_NS or (match[1] == "-" and total_ns):
        return None
    return total_ns / 1e9


def _ns(number: str, unit_ns: int) -> int:
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    return int(whole or "0") * unit_ns + int(fraction or "0") * unit_ns // scale
