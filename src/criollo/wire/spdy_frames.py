"""SPDY/3.1 frames: what their headers and payloads say, and how they are written.

    control  |1| version 15 | type 16 | flags 8 | length 24 |  payload
    bytes    |0| stream id 31         | flags 8 | length 24 |  payload

Pure functions over whole payloads: every one compares lengths and counts before it uses them.
Source: SPDY Protocol, draft 3.1, section 2 (dev.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1).
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

VERSION: Final = 3  # 3.1 kept the number of 3
HEAD_BYTES: Final = 8
MAX_ID: Final = (1 << 31) - 1
MAX_WINDOW: Final = (1 << 31) - 1
MAX_PAYLOAD: Final = (1 << 24) - 1
MAX_SETTINGS: Final = 64  # the draft knows eight

FIN: Final = 0x01
UNIDIRECTIONAL: Final = 0x02
_CONTROL: Final = 0x8000
_HEAD: Final = struct.Struct(">HHI")
_STREAM_HEAD: Final = struct.Struct(">II")
_PAIR: Final = struct.Struct(">II")
_WORD: Final = struct.Struct(">I")
_SYN: Final = struct.Struct(">IIBB")


class FrameKind(IntEnum):
    """Types of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Reset(IntEnum):
    """Why a stream was reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    FRAME_TOO_LARGE = 11


class Farewell(IntEnum):
    """Why a session ends."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class Setting(IntEnum):
    """The settings that mean something here."""

    MAX_CONCURRENT_STREAMS = 4
    INITIAL_WINDOW_SIZE = 7


class Broken(ValueError):
    """A frame that the protocol does not have: the session cannot go on."""


class Head(NamedTuple):
    """The first eight bytes. `kind` is the type of a control frame, None: payload of `stream_id`."""

    kind: int | None
    stream_id: int
    flags: int
    length: int


class Syn(NamedTuple):
    """The fixed part of a SYN_STREAM."""

    stream_id: int
    associated_id: int
    priority: int


def read_head(octets: bytes | bytearray, at: int = 0) -> Head:
    """A frame's head. Raises Broken for a control frame of another version."""
    first, second, rest = _HEAD.unpack_from(octets, at)
    if not first & _CONTROL:
        return Head(None, first << 16 | second, rest >> 24, rest & MAX_PAYLOAD)
    if first & ~_CONTROL != VERSION:
        raise Broken(f"control frame of version {first & ~_CONTROL}")
    return Head(second, 0, rest >> 24, rest & MAX_PAYLOAD)


def read_syn_stream(payload: bytes) -> Syn:
    """The fixed part; the header block follows at `SYN_STREAM_FIXED`."""
    if len(payload) < _SYN.size:
        raise Broken(f"SYN_STREAM of {len(payload)} bytes")
    stream_id, associated_id, priority, _ = _SYN.unpack_from(payload)
    return Syn(stream_id & MAX_ID, associated_id & MAX_ID, priority >> 5)


def read_stream_id(payload: bytes) -> int:
    """The stream that a SYN_REPLY or HEADERS is for; the header block follows at `REPLY_FIXED`."""
    if len(payload) < _WORD.size:
        raise Broken(f"header frame of {len(payload)} bytes")
    (word,) = _WORD.unpack_from(payload)
    return int(word) & MAX_ID


SYN_STREAM_FIXED: Final = _SYN.size
REPLY_FIXED: Final = _WORD.size


def read_reset(payload: bytes) -> tuple[int, int]:
    """Stream id and status. Text may follow them (spdy-transport's debugging aid): it is left alone."""
    if len(payload) < _PAIR.size:
        raise Broken(f"RST_STREAM of {len(payload)} bytes")
    stream_id, status = _PAIR.unpack_from(payload)
    return stream_id & MAX_ID, status


def read_settings(payload: bytes) -> dict[int, int]:
    """Values by setting; of a repeated one the last."""
    if len(payload) < _WORD.size:
        raise Broken(f"SETTINGS of {len(payload)} bytes")
    (count,) = _WORD.unpack_from(payload)
    if count > MAX_SETTINGS or len(payload) != _WORD.size + count * _PAIR.size:
        raise Broken(f"SETTINGS with {count} entries in {len(payload)} bytes")
    return {word & 0xFFFFFF: value for word, value in _PAIR.iter_unpack(payload[_WORD.size :])}


def read_ping(payload: bytes) -> int:
    """The ping's id."""
    if len(payload) != _WORD.size:
        raise Broken(f"PING of {len(payload)} bytes")
    (ping_id,) = _WORD.unpack(payload)
    return int(ping_id)


def read_goaway(payload: bytes) -> tuple[int, int]:
    """The last stream of ours that the peer looked at, and its status."""
    if len(payload) != _PAIR.size:
        raise Broken(f"GOAWAY of {len(payload)} bytes")
    last_id, status = _PAIR.unpack(payload)
    return last_id & MAX_ID, status


def read_window_update(payload: bytes) -> tuple[int, int]:
    """Stream id (0: the session) and how much more may be sent; 0 or a set top bit is for the caller to refuse."""
    if len(payload) != _PAIR.size:
        raise Broken(f"WINDOW_UPDATE of {len(payload)} bytes")
    stream_id, delta = _PAIR.unpack(payload)
    return stream_id & MAX_ID, delta


def payload_head(stream_id: int, size_bytes: int, flags: int = 0) -> bytes:
    """What comes before `size_bytes` of a stream's bytes."""
    return _STREAM_HEAD.pack(stream_id, flags << 24 | size_bytes)


def syn_stream(stream_id: int, block: bytes, flags: int = 0) -> bytes:
    """Opens a stream with a compressed header block."""
    return control(FrameKind.SYN_STREAM, _SYN.pack(stream_id, 0, 0, 0) + block, flags)


def with_headers(kind: FrameKind, stream_id: int, block: bytes, flags: int = 0) -> bytes:
    """A SYN_REPLY or HEADERS with a compressed header block."""
    return control(kind, _WORD.pack(stream_id) + block, flags)


def reset(stream_id: int, status: Reset) -> bytes:
    """Ends one stream, both ways."""
    return control(FrameKind.RST_STREAM, _PAIR.pack(stream_id, status))


def settings(values: dict[Setting, int]) -> bytes:
    """What we ask the peer to keep to."""
    return control(
        FrameKind.SETTINGS, _WORD.pack(len(values)) + b"".join(_PAIR.pack(key, values[key]) for key in sorted(values))
    )


def ping(ping_id: int) -> bytes:
    """A question, or the answer to one: the same frame."""
    return control(FrameKind.PING, _WORD.pack(ping_id))


def goaway(last_id: int, status: Farewell) -> bytes:
    """No stream after `last_id` is looked at any more."""
    return control(FrameKind.GOAWAY, _PAIR.pack(last_id, status))


def window_update(stream_id: int, delta: int) -> bytes:
    """The peer may send so many bytes more; stream 0 is the session."""
    return control(FrameKind.WINDOW_UPDATE, _PAIR.pack(stream_id, delta))


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """A control frame of any type."""
    return _HEAD.pack(_CONTROL | VERSION, kind, flags << 24 | len(payload)) + payload
