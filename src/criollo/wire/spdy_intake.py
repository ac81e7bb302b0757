"""What was read of a SPDY connection and not yet taken.

Parts that must be whole are collected; payload is passed on as it came.
"""


class Intake:
    """Bytes in the order in which they came; holds what it is given once, and copies only what is cut out of it."""

    __slots__ = ("_at", "_held", "_octets")

    def __init__(self) -> None:
        self._octets, self._at = b"", 0
        self._held = bytearray()

    @property
    def has_more(self) -> bool:
        return self._at < len(self._octets)

    def add(self, octets: bytes) -> None:
        """Bytes that follow; best when nothing is left."""
        self._octets, self._at = self._octets[self._at :] + octets if self.has_more else octets, 0

    def whole(self, size_bytes: int) -> bytes | None:
        """So many bytes; None: they are not all here yet, and are kept until they are. To be asked for the same size again."""
        missing = size_bytes - len(self._held)
        octets = self._octets[self._at : self._at + missing]
        self._at += len(octets)
        if len(octets) < missing:
            self._held += octets
            return None
        if not self._held:
            return octets
        octets = bytes(self._held) + octets
        self._held.clear()
        return octets

    def piece(self, at_most: int) -> bytes:
        """What is here of so many bytes. All that was added last is given as it is, not as a copy."""
        octets, start = self._octets, self._at
        end = min(len(octets), start + at_most)
        if end < len(octets):
            self._at = end
            return octets[start:end]
        self._octets, self._at = b"", 0  # not kept alive here until more is read
        return octets[start:] if start else octets
