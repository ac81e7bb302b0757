"""Fields of documents of trust, read strictly: nothing unknown, nothing missing, nothing of another type."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from criollo.errors import Invalid

_LINE_ENDS: Final = re.compile(r"[\r\n]")


def an_object(value: object, where: str) -> dict[str, Any]:
    """The object that a value must be."""
    if not isinstance(value, dict):
        raise Invalid(where, type(value).__name__, "an object")
    return value


def text(value: object, where: str) -> str:
    """The non-empty string that a value must be."""
    if not isinstance(value, str) or not value:
        raise Invalid(where, value, "a string")
    return value


def texts(value: object, where: str) -> tuple[str, ...]:
    """The list of at least one string that a value must be."""
    if not isinstance(value, list) or not value:
        raise Invalid(where, value, "a list of at least one string")
    return tuple(text(item, f"{where}[{at}]") for at, item in enumerate(value))


def decoded(value: object, where: str) -> bytes:
    """The bytes that a base64 string stands for; it may be broken into lines, as other readers take it."""
    try:
        return base64.b64decode(_LINE_ENDS.sub("", text(value, where)), validate=True)
    except (ValueError, binascii.Error):
        raise Invalid(where, "no base64", "base64") from None


def only(value: Mapping[str, Any], known: Sequence[str] | set[str] | frozenset[str], where: str) -> None:
    """Refuse keys that are not known."""
    for key in value:
        if key not in known:
            raise Invalid(where, f"the key {key!r}", f"only {', '.join(sorted(known))}")


def exactly(value: Mapping[str, Any], keys: set[str], where: str) -> None:
    """Refuse keys that are not known, and the absence of one that is."""
    only(value, keys, where)
    for key in sorted(keys):
        if key not in value:
            raise Invalid(where, f"no {key}", f"exactly {', '.join(sorted(keys))}")
