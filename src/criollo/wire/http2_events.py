"""What an HTTP/2 session tells."""

from typing import NamedTuple

from criollo.wire.hpack import Fields
from criollo.wire.http2_frames import ErrorCode


class Head(NamedTuple):
    """A request's or response's fields, or trailers; `ends`: nothing more comes on this stream."""

    stream_id: int
    fields: Fields
    is_trailers: bool
    ends: bool


class Body(NamedTuple):
    """A part of a body, maybe an empty one."""

    stream_id: int
    payload: bytes
    ends: bool


class Reset(NamedTuple):
    """A stream ended before its time: by the peer, or by us for the peer's fault."""

    stream_id: int
    code: int


class GoneAway(NamedTuple):
    """The peer opens no more streams, and takes none."""

    code: int
    text: str


class Failed(NamedTuple):
    """The peer broke a rule; a GOAWAY that says so waits to be taken, and the connection is to be closed."""

    code: ErrorCode
    text: str


Event = Head | Body | Reset | GoneAway | Failed
