"""Checks of single fields: each takes the field's name and its value, and gives the value or raises Invalid.

What passes is safe to name a file, a line or an argument: no NUL, no control characters where none belong, bounded length.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from criollo.errors import Invalid
from criollo.model.ids import is_hostname

NAME_LENGTH: Final = 253
PATH_LENGTH: Final = 4095  # PATH_MAX of linux/limits.h without the final NUL
TEXT_LENGTH: Final = 4096
PAIRS: Final = 10_000
PAIRS_LENGTH: Final = 1 << 20
ITEMS: Final = 10_000
MAX_ID: Final = (1 << 31) - 1
MAX_INT64: Final = (1 << 63) - 1

_CPUSET: Final = re.compile(r"[0-9,\-]*")


def text(field: str, value: str, *, limit: int = TEXT_LENGTH, required: bool = False) -> str:
    """One line of text."""
    if required and not value:
        raise Invalid(field, value, f"1 to {limit} characters")
    if len(value) > limit or not value.isprintable():
        raise Invalid(field, value, f"at most {limit} characters without control characters")
    return value


def words(field: str, value: str, *, limit: int = 1 << 20) -> str:
    """Text of any lines."""
    if "\0" in value or len(value) > limit:
        raise Invalid(field, value, f"at most {limit} characters without NUL")
    return value


def name(field: str, value: str, *, required: bool = True) -> str:
    """A part of a name: no slash, not `.` or `..`, nothing that an option begins with."""
    text(field, value, limit=NAME_LENGTH, required=required)
    if "/" in value or value in (".", "..") or value.startswith("-"):
        raise Invalid(field, value, "a name without '/' that does not begin with '-'")
    return value


def hostname(field: str, value: str) -> str:
    if value and not is_hostname(value):
        raise Invalid(field, value, "a host name of at most 64 letters, digits, '-' and '.'")
    return value


def path(field: str, value: str, *, required: bool = True) -> str:
    """An absolute path, as it came."""
    if not value and not required:
        return value
    _no_control(field, value, PATH_LENGTH)
    if not value.startswith("/"):
        raise Invalid(field, value, "an absolute path")
    return value


def plain_path(field: str, value: str, *, required: bool = True) -> str:
    """An absolute path without `..`."""
    if ".." in path(field, value, required=required).split("/"):
        raise Invalid(field, value, "an absolute path without '..'")
    return value


def relative_path(field: str, value: str) -> str:
    """A path below some directory; empty if not given."""
    _no_control(field, value, PATH_LENGTH)
    if value.startswith("/") or ".." in value.split("/"):
        raise Invalid(field, value, "a relative path without '..'")
    return value


def address(field: str, value: str) -> str:
    """An IP address, or empty."""
    if not value:
        return value
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        raise Invalid(field, value, "an IP address") from None
    if "%" in value:
        raise Invalid(field, value, "an IP address without a zone")
    return str(found)


def number(field: str, value: int, low: int, high: int = MAX_INT64) -> int:
    if not low <= value <= high:
        raise Invalid(field, value, f"a number from {low} to {high}")
    return value


def user_id(field: str, value: int) -> int:
    """A user or group id."""
    return number(field, value, 0, MAX_ID)


def cpuset(field: str, value: str) -> str:
    if len(value) > TEXT_LENGTH or not _CPUSET.fullmatch(value):
        raise Invalid(field, value, "a list like 0-3,7")
    return value


def pairs(field: str, values: Mapping[str, str]) -> dict[str, str]:
    """Labels or annotations: keys of one line, values of any text, bounded in number and in all."""
    if len(values) > PAIRS:
        raise Invalid(field, f"{len(values)} entries", f"at most {PAIRS}")
    total = 0
    for key, value in values.items():
        total += len(key) + len(value)
        if total > PAIRS_LENGTH:
            raise Invalid(field, f"more than {PAIRS_LENGTH} characters", f"at most {PAIRS_LENGTH} characters in all")
        text(f"{field} key", key, limit=1024, required=True)
        words(f"{field}[{key}]", value)
    return dict(values)


def count(field: str, values: Collection[object], limit: int = ITEMS) -> None:
    if len(values) > limit:
        raise Invalid(field, f"{len(values)} entries", f"at most {limit}")


def one_of(field: str, value: int, known: Mapping[int, str] | Collection[int], allowed: str) -> None:
    """Raise unless an enum's number is among `known`; `allowed` names them."""
    if value not in known:
        raise Invalid(field, value, allowed)


def all_text(field: str, values: Iterable[str], *, limit: int = TEXT_LENGTH) -> tuple[str, ...]:
    return tuple(text(f"{field}[{index}]", value, limit=limit, required=True) for index, value in enumerate(values))


def arguments(field: str, values: Collection[str]) -> tuple[str, ...]:
    """Arguments of a command: any text without NUL, 1 MiB in all."""
    count(field, values, 100_000)
    if sum(map(len, values)) > 1 << 20:
        raise Invalid(field, f"{sum(map(len, values))} characters", "at most 1 MiB in all")
    return tuple(words(f"{field}[{index}]", value) for index, value in enumerate(values))


def _no_control(field: str, value: str, limit: int) -> None:
    if len(value.encode()) > limit or any(character < " " or character == "\x7f" for character in value):
        raise Invalid(field, value, f"a path of at most {limit} bytes without control characters")
