"""What a SPDY peer may make of us: bytes in flight for each stream and session, and frames that cost us more than the peer.

A window is a number on either side: the sender takes off what it sends and stops at nothing, the receiver gives back what has
been used up. Not every peer does this (docs/decisions/0006-spdy-flow-control.md), so both numbers are kept from the start,
below zero if need be, and hold only once `Flow.is_on`.
Source: SPDY Protocol, draft 3.1, section 2.6.8.
"""

from typing import Final

from criollo.wire import spdy_frames as frames
from criollo.wire.spdy_frames import Broken

DEFAULT_WINDOW: Final = 64 << 10
STREAM_WINDOW: Final = 1 << 20
SESSION_WINDOW: Final = 8 << 20  # of unread bytes, for all streams of a session together
SLACK: Final = 64 << 10  # spdy-transport sends a whole chunk into whatever is left of a window

_BURST: Final = 1000
_PER_S: Final = 100


class Overflow(ValueError):
    """More was sent, or may be sent, than the window allows."""


class Window:
    """One stream's window, or the session's, in both directions."""

    __slots__ = ("owed", "room_in", "room_out", "size")

    def __init__(self, size: int, room_out: int) -> None:
        self.size, self.room_in, self.room_out, self.owed = size, size, room_out, 0

    def widen_out(self, delta: int) -> None:
        """The peer allows more, or with its settings less. Raises Overflow."""
        if self.room_out + delta > frames.MAX_WINDOW:
            raise Overflow(f"window of {self.room_out} bytes raised by {delta}")
        self.room_out += delta

    def used_up(self, size_bytes: int) -> int:
        """Count bytes that need no room here any more; how much to give back to the sender now."""
        self.owed += size_bytes
        return self.owed if self.owed * 2 >= self.size else 0

    def give_back(self) -> int:
        """All that is owed: the sender's number again, once it has been told."""
        given, self.owed = min(self.owed, frames.MAX_WINDOW), 0
        self.room_in += given
        return given


class Budget:
    """So many frames that ask for an answer or change nothing, and more as time goes by."""

    __slots__ = ("_left", "_then")

    def __init__(self) -> None:
        self._left, self._then = float(_BURST), 0.0

    def charge(self, now: float) -> None:
        """Raises Broken: the peer has sent too many of them in too short a time."""
        self._left = min(_BURST, self._left + (now - self._then) * _PER_S) - 1
        self._then = now
        if self._left < 0:
            raise Broken(f"more than {_PER_S} pings, resets and the like in a second")
