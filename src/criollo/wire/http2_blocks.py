"""Blocks of fields: HEADERS with what CONTINUATION adds, decoded.

Source: RFC 9113, sections 4.3, 6.2 and 6.10.
"""

from typing import NamedTuple

from criollo.wire import http2_frames as h2
from criollo.wire.hpack import BadBlock, Decoder, Fields, TooLarge
from criollo.wire.http2_floods import CONTINUATIONS
from criollo.wire.http2_frames import ErrorCode, Fault, Frame


class Block(NamedTuple):
    stream_id: int
    fields: Fields
    ends: bool


class Blocks:
    """The receiving end of a connection's blocks; one may be unfinished, of the stream `awaits` (0: none)."""

    def __init__(self, *, list_bytes: int) -> None:
        self._decoder = Decoder(list_bytes=list_bytes)
        self._list_bytes = list_bytes
        self._octets = bytearray()
        self._frames, self._ends = 0, False
        self.awaits = 0

    def begin(self, frame: Frame) -> Block | None:
        """The block of a HEADERS frame, None when it goes on. Raises Fault."""
        octets, ends = h2.unpadded(frame), bool(frame.flags & h2.END_STREAM)
        if frame.flags & h2.END_HEADERS:
            return self._decoded(frame.stream_id, octets, ends=ends)
        self.awaits, self._ends, self._frames = frame.stream_id, ends, 0
        self._octets += octets
        return None

    def go_on(self, frame: Frame) -> Block | None:
        """The block that a CONTINUATION frame ends, None when it goes on. Raises Fault."""
        if not self.awaits:
            raise Fault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._octets += frame.payload
        self._frames += 1
        # Decoded fields count more than they take here, so a block this large is over the limit of the list too.
        if self._frames > CONTINUATIONS or len(self._octets) > self._list_bytes:
            raise Fault(ErrorCode.ENHANCE_YOUR_CALM, "a block of fields does not end")
        if not frame.flags & h2.END_HEADERS:
            return None
        octets, self.awaits = bytes(self._octets), 0
        self._octets.clear()
        return self._decoded(frame.stream_id, octets, ends=self._ends)

    def _decoded(self, stream_id: int, octets: bytes, *, ends: bool) -> Block:
        """Also of blocks that nobody wants: the tables of both sides must stay the same."""
        try:
            return Block(stream_id, self._decoder.decode(octets), ends)
        except BadBlock as error:
            raise Fault(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        except TooLarge as error:
            raise Fault(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
