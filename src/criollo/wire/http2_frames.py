"""Frames of HTTP/2: cut out of bytes that come in any pieces, and made.

Source: RFC 9113, sections 4, 6 and 7.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_BYTES: Final = 1 << 14  # the largest payload a peer may send us; more of it would only make a call wait longer
MOST_FRAME_BYTES: Final = (1 << 24) - 1
WINDOW_BYTES: Final = 65535  # of a stream and of the connection, before anybody says otherwise
MOST_WINDOW_BYTES: Final = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

_HEAD: Final = Struct(">BHBBL")  # length (high octet, the rest), kind, flags, stream
_SETTING: Final = Struct(">HL")
_STREAM: Final = 0x7FFFFFFF


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Fault(Exception):
    """The peer broke a rule in a way that ends the connection."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code.name}: {text}")


class Frame(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


class FrameReader:
    """Collects bytes until frames are whole. What is held is less than one frame."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = 0

    def frames(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with `data`; all must be taken before more bytes are given.

        Raises Fault for a frame that is too long, after those before it.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = bytes(self._held)
            self._held.clear()
        at, end = 0, len(data)
        self._needed = HEAD_BYTES
        while at + HEAD_BYTES <= end:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, at)
            length = high << 16 | low
            if length > FRAME_BYTES:
                raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes, {FRAME_BYTES} are allowed")
            stop = at + HEAD_BYTES + length
            if stop > end:
                self._needed = HEAD_BYTES + length
                break
            yield Frame(kind, flags, stream_id & _STREAM, data[at + HEAD_BYTES : stop])
            at = stop
        self._held += data[at:]


def unpadded(frame: Frame) -> bytes:
    """What DATA or HEADERS carry, without padding and without the priority that nobody obeys. Raises Fault."""
    payload, flags = frame.payload, frame.flags
    start, padding = 0, 0
    if flags & PADDED:
        if not payload:
            raise Fault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its padding's length")
        start, padding = 1, payload[0]
    if frame.kind == HEADERS and flags & HAS_PRIORITY:
        start += 5
        if len(payload) < start:
            raise Fault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS shorter than its priority")
    if start + padding > len(payload):
        raise Fault(ErrorCode.PROTOCOL_ERROR, "a frame with more padding than it has bytes")
    return payload[start : len(payload) - padding]


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame, in order and with those we do not know. Raises Fault for values that are not allowed."""
    if len(payload) % _SETTING.size:
        raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    found = list(_SETTING.iter_unpack(payload))
    for name, value in found:
        if name == ENABLE_PUSH and value > 1:
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        if name == INITIAL_WINDOW_SIZE and value > MOST_WINDOW_BYTES:
            raise Fault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        if name == MAX_FRAME_SIZE and not FRAME_BYTES <= value <= MOST_FRAME_BYTES:
            raise Fault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
    return found


def number_of(frame: Frame) -> int:
    """What RST_STREAM or WINDOW_UPDATE carries. Raises Fault."""
    if len(frame.payload) != 4:
        raise Fault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of kind {frame.kind} with {len(frame.payload)} bytes")
    number = int.from_bytes(frame.payload, "big")
    return number & _STREAM if frame.kind == WINDOW_UPDATE else number


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def header_frames(stream_id: int, block: bytes, *, end: bool, most: int) -> bytes:
    """HEADERS with a block, and CONTINUATION where it is longer than `most` bytes."""
    flags = END_STREAM if end else 0
    if len(block) <= most:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(HEADERS, flags, stream_id, block[:most])]
    for at in range(most, len(block), most):
        last = END_HEADERS if at + most >= len(block) else 0
        parts.append(frame(CONTINUATION, last, stream_id, block[at : at + most]))
    return b"".join(parts)


def settings(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def window_update(stream_id: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, size.to_bytes(4, "big"))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode()[:200])
