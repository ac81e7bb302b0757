"""Which header fields make a request, a response or trailers; the others are malformed and end their stream.

Source: RFC 9113, sections 8.1 to 8.5.
"""

import re
from typing import Final

from criollo.wire.hpack import Field, Fields

_REQUEST: Final = frozenset((":method", ":scheme", ":authority", ":path"))
_RESPONSE: Final = frozenset((":status",))
_NONE: Final[frozenset[str]] = frozenset()
_OF_HTTP1: Final = frozenset(("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"))
_NAME: Final = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(r"(?:[^\0\r\n\t ](?:[^\0\r\n]*[^\0\r\n\t ])?)?")  # section 8.2.1: also no blanks around
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_STATUS: Final = re.compile(r"[1-9][0-9][0-9]")
_KNOWN: Final = 500  # fields seen to be well formed: clients send the same ones all the time
_KNOWN_CHARACTERS: Final = 300


class Malformed(ValueError):
    """Fields that make no message."""


class FieldRules:
    """The rules, with a memory of what was found good on this connection."""

    def __init__(self) -> None:
        self._good: set[Field] = set()
        self._good_request: Fields | None = None

    def request(self, fields: Fields) -> int | None:
        """Judge the head of a request; give the length of its body if it says one. Raises Malformed."""
        if fields is self._good_request:  # the decoder gives one object for a block that is repeated
            return None
        found = self._pseudo(fields, _REQUEST)
        if found.get(":method") == "CONNECT":
            if set(found) != {":method", ":authority"}:
                raise Malformed("CONNECT with a scheme or path, or without an authority")
        elif not (found.get(":method") and found.get(":scheme") and found.get(":path")):
            raise Malformed("a request without method, scheme or path")
        length = _body_length(fields)
        if length is None:
            self._good_request = fields
        return length

    def response(self, fields: Fields) -> int:
        """Judge the head of a response; give its status. Raises Malformed."""
        status = self._pseudo(fields, _RESPONSE).get(":status", "")
        if not _STATUS.fullmatch(status):
            raise Malformed(f"a response with the status {status!r}")
        return int(status)

    def trailers(self, fields: Fields) -> None:
        """Judge trailers. Raises Malformed."""
        self._pseudo(fields, _NONE)

    def _pseudo(self, fields: Fields, allowed: frozenset[str]) -> dict[str, str]:
        """The pseudo fields, once every field is known to be well formed."""
        found: dict[str, str] = {}
        good, is_over = self._good, False
        for field in fields:
            name, value = field
            if field not in good:
                self._check(name, value)
                if len(name) + len(value) <= _KNOWN_CHARACTERS:
                    self._remember(field)
            if name[0] != ":":
                is_over = True
            elif is_over or name not in allowed or name in found:
                raise Malformed(f"the pseudo field {name[:40]!r} is unknown, doubled or out of place")
            else:
                found[name] = value
        return found

    def _remember(self, field: Field) -> None:
        if len(self._good) >= _KNOWN:
            self._good.clear()
        self._good.add(field)

    def _check(self, name: str, value: str) -> None:
        if not _NAME.fullmatch(name):
            raise Malformed(f"a field is called {name[:40]!r}")
        if not _VALUE.fullmatch(value):
            raise Malformed(f"the value of {name[:40]!r} has characters or blanks that it must not have")
        if name in _OF_HTTP1 or (name == "te" and value != "trailers"):
            raise Malformed(f"{name!r} is of HTTP/1")


def _body_length(fields: Fields) -> int | None:
    found = {value for name, value in fields if name == "content-length"}
    if not found:
        return None
    length = found.pop()
    if found or not _LENGTH.fullmatch(length):
        raise Malformed("content-length is no number, or says two")
    return int(length)
