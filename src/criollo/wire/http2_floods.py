"""What a peer may do that costs it nothing and us something: counted, and too much of it ends the connection.

Opening and resetting streams (CVE-2023-39325, also resets that the peer provokes from us: CVE-2025-8671), and frames that
move nothing: pings, settings, window updates, empty data (CVE-2019-9512, 9515, 9518). Honest clients send some of these with
every call, so calls and bytes that move pay for them.
"""

from collections import deque
from typing import Final

from criollo.wire.http2_frames import ErrorCode, Fault

RESETS: Final = 1000
RESETS_IN_S: Final = 10.0
IDLE_FRAMES: Final = 10_000
IDLE_FRAMES_IN_S: Final = 10.0
CONTINUATIONS: Final = 64  # of one block, CVE-2024-27316
_PAID: Final = 10  # idle frames that one call, or one larger frame of data, pays for


class Floods:
    """The counts of one connection. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._resets: deque[float] = deque(maxlen=RESETS)
        self._idle, self._since = 0, 0.0

    def reset(self, now: float) -> None:
        """A stream was reset by the peer, or by us for its fault. Raises Fault."""
        self._resets.append(now)
        if len(self._resets) == RESETS and now - self._resets[0] < RESETS_IN_S:
            raise Fault(ErrorCode.ENHANCE_YOUR_CALM, f"{RESETS} streams were reset within {RESETS_IN_S:g} s")

    def idle(self, now: float) -> None:
        """A frame came that moves nothing. Raises Fault."""
        if now - self._since >= IDLE_FRAMES_IN_S:
            self._idle, self._since = 0, now
        self._idle += 1
        if self._idle > IDLE_FRAMES:
            raise Fault(ErrorCode.ENHANCE_YOUR_CALM, f"{IDLE_FRAMES} frames moved nothing within {IDLE_FRAMES_IN_S:g} s")

    def worked(self) -> None:
        """A call began, or bytes moved."""
        self._idle = max(0, self._idle - _PAID)
