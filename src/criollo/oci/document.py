"""JSON documents of others, read strictly: one meaning per document, or none.

A document is refused when it is over its size, has too many values, is nested too deep, is no UTF-8, holds NaN or a lone
surrogate, or names a key twice in one object: two readers might otherwise see two documents under one digest. Every failure
is an `Invalid` that names the place.
"""

import json
import re
from collections.abc import Collection
from typing import Any, Final, TypeVar

import msgspec

from criollo.errors import Invalid
from criollo.oci.digest import Digest

T = TypeVar("T")

MAX_DEPTH: Final = 100
# Text costs nothing, structure does: these bound the time in which the loop stands still. In strings they count too.
MAX_BRACKETS: Final = 50_000
MAX_COMMAS: Final = 100_000
_WRONG_TYPE: Final = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_PLACE: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<place>.*)`$")


def parse(raw: bytes, *, what: str, limit_bytes: int) -> Any:
    """The value of a JSON document; `what` names the document in errors.

    Raises:
        Invalid: see the module's rules.
    """
    if len(raw) > limit_bytes:
        raise Invalid(what, f"{len(raw)} bytes", f"at most {limit_bytes} bytes")
    if (found := raw.count(b"{") + raw.count(b"[")) > MAX_BRACKETS or raw.count(b",") > MAX_COMMAS:
        raise Invalid(what, f"{found} brackets and {raw.count(b',')} commas", f"at most {MAX_BRACKETS} and {MAX_COMMAS}")
    try:
        json.loads(raw.decode(), object_pairs_hook=_without_twins)
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise Invalid(what, "deep nesting", f"at most {MAX_DEPTH} levels") from None
    except _Twin as error:
        raise Invalid(what, f"the key {error.key!r} twice", "each key once per object") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise Invalid(what, f"no JSON ({error})", "a JSON document in UTF-8") from None
    _check_depth(value, what)
    return value


def parse_object(raw: bytes, *, what: str, limit_bytes: int) -> dict[str, Any]:
    """Like `parse`, for a document that must be an object."""
    value = parse(raw, what=what, limit_bytes=limit_bytes)
    if not isinstance(value, dict):
        raise Invalid(what, type(value).__name__, "a JSON object")
    return value


def convert(value: object, kind: type[T], *, what: str) -> T:
    """A parsed value as a typed one.

    Raises:
        Invalid: a field has the wrong type or is missing; the message has its path.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=_decode_ours)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        field = f"{what}.{place['place']}" if place else what
        wrong = _WRONG_TYPE.match(text)
        if wrong:
            raise Invalid(field, wrong["got"], wrong["expected"]) from None
        raise Invalid(field, _PLACE.sub("", text), "a document of its specification") from None


def without_nulls(value: dict[str, Any], *nested: str) -> dict[str, Any]:
    """The object without its null members, and the same one level down for the `nested` keys: null means absent."""
    kept = {key: member for key, member in value.items() if member is not None}
    for key in nested:
        if isinstance(kept.get(key), dict):
            kept[key] = without_nulls(kept[key])
    return kept


def refuse_case_twins(value: object, known: Collection[str], *, what: str) -> None:
    """Refuse a key that is a known one in other case: some readers ignore case, and would see another document."""
    if not isinstance(value, dict):
        return
    lowered = {key.lower(): key for key in known}
    for key in value:
        if key not in known and key.lower() in lowered:
            raise Invalid(what, f"the key {key!r}", f"it spelled {lowered[key.lower()]!r}")


class _Twin(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _without_twins(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _Twin(key)
        seen.add(key)


def _check_depth(value: object, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _members(outer) if isinstance(inner, (dict, list))]
        if not level:
            return
    raise Invalid(what, "deep nesting", f"at most {MAX_DEPTH} levels")


def _members(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _decode_ours(kind: type, value: object) -> object:
    if kind is not Digest:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    try:
        return Digest(value)
    except Invalid as error:
        raise ValueError(f"Expected `{error.expected}`, got `{value[:100]!r}`".replace("`'", "`").replace("'`", "`")) from None
