"""Numbers of bytes as people write them.

Source: docker/go-units, RAMInBytes, which CRI-O and containers/storage read them with.
"""

import re
from typing import Final

_SIZE: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))? *([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_bytes(text: str) -> int | None:
    """The number, with an optional unit, all powers of 1024: `10GiB`, `512m`, `1.5g`. None: not of this form."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    unit = 1 << 10 * _POWERS[match[3].lower()]
    fraction = int(match[2]) * unit // 10 ** len(match[2]) if match[2] else 0
    return int(match[1]) * unit + fraction
