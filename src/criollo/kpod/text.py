"""Text for people: aligned tables, sizes, ages; and JSON for programs.

What comes from images and containers may hold anything: every cell is escaped, so that a label cannot move the cursor or
rename the window (CVE-2021-25743). JSON is ASCII for the same reason.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from criollo.errors import printable

_GAP: Final = "  "
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_AGES: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their heads, as wide as their widest cell; one line per row, no final newline."""
    lines = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def size(count_bytes: float) -> str:
    """`1.5 GiB`: three digits and a binary unit."""
    amount, unit = float(count_bytes), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    digits = 0 if unit == 0 or amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def age(then_ns: int, now_ns: int) -> str:
    """`3 h` since a moment; the largest unit only. Empty for a moment that was not reached."""
    if then_ns <= 0:
        return ""
    seconds = max(0, now_ns - then_ns) // 1_000_000_000
    return next((f"{seconds // length} {unit}" for length, unit in _AGES if seconds >= length), "0 s")


def short(text: str) -> str:
    """The first 12 characters of an id, without the name of its hash."""
    return text.removeprefix("sha256:")[:12]


def document(value: object) -> str:
    """JSON that may go to a terminal as it is: indented, ASCII, keys in the order given."""
    return json.dumps(value, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")
