"""What a SPDY session tells whoever drives it."""

from typing import NamedTuple


class Opened(NamedTuple):
    """The peer opened a stream; `is_last`: it will send nothing on it."""

    stream_id: int
    headers: dict[str, str]
    is_last: bool


class Replied(NamedTuple):
    """The peer took a stream of ours; `is_last`: it will send nothing on it."""

    stream_id: int
    headers: dict[str, str]
    is_last: bool


class Received(NamedTuple):
    """Payload of a stream; `is_last`: no more comes. To be answered with `used_up` when it takes no room any more."""

    stream_id: int
    octets: bytes
    is_last: bool


class WasReset(NamedTuple):
    """A stream is gone: the peer reset it, or broke its rules."""

    stream_id: int
    reason: str


class RoomMade(NamedTuple):
    """More may be sent: on one stream, or with 0 on any."""

    stream_id: int


class Ponged(NamedTuple):
    """The answer to a ping of ours."""

    ping_id: int


class Leaving(NamedTuple):
    """The peer opens no more streams, and takes none after `last_id`."""

    last_id: int


class Failed(NamedTuple):
    """The session is over: the peer broke the protocol."""

    reason: str


Event = Opened | Replied | Received | WasReset | RoomMade | Ponged | Leaving | Failed
