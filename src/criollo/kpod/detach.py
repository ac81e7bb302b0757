"""Keys that let go of a terminal session: found in what is typed, before it is sent."""

import re
from typing import Final

from criollo.errors import Invalid

DEFAULT: Final = "ctrl-p,ctrl-q"

_CTRL: Final = re.compile(r"ctrl-([a-zA-Z@\[\\\]^_])")


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `q` as the bytes a terminal gives; empty for none. Raises Invalid."""
    found = bytearray()
    for word in text.split(",") if text else ():
        control = _CTRL.fullmatch(word)
        if control:
            found.append(ord(control[1].upper()) & 0x1F)
        elif len(word) == 1 and " " <= word <= "~":
            found.append(ord(word))
        else:
            raise Invalid("--detach-keys", text, "letters and ctrl-LETTER, with commas between them, such as ctrl-p,ctrl-q")
    return bytes(found)


class Watcher:
    """Passes on what is typed. Keys that may be the beginning are held back until the next one tells."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0
        self.has_found = False

    def feed(self, typed: bytes) -> bytes:
        """What is to be sent; nothing after the keys were found."""
        if not self._keys:
            return typed
        passed = bytearray()
        for byte in typed:
            if self.has_found:
                break
            self._held = self._next(byte, passed)
            self.has_found = self._held == len(self._keys)
        return bytes(passed)

    def rest(self) -> bytes:
        """What was held back, at the end of what is typed."""
        held, self._held = self._keys[: self._held], 0
        return b"" if self.has_found else held

    def _next(self, byte: int, passed: bytearray) -> int:
        """How many of the keys have now been typed in a row; what cannot belong to them any more is passed."""
        row = self._keys[: self._held] + bytes((byte,))
        while row and not self._keys.startswith(row):
            passed.append(row[0])
            row = row[1:]
        return len(row)
