"""Kubernetes' channels in the messages of a WebSocket: which subprotocols there are, and what their messages say.

A message is a channel and some of its bytes. Exec and attach have five channels; the client's bytes on 1-3 and the server's on
0 and 4 mean nothing:

    0 stdin ──▶   ◀── 1 stdout   ◀── 2 stderr   ◀── 3 error: how it ended   4 resize ──▶ {"Width": 80, "Height": 24}

| subprotocol | message | end of stdin | channel 3 |
|---|---|---|---|
| none, `channel.k8s.io` | byte n, then raw bytes | end of the connection | text, only of a failure |
| `v4.channel.k8s.io` | the same | the same | a Status as JSON, always |
| `v5.channel.k8s.io` | the same | also bytes 255, n: channel n ends | a Status as JSON, always |
| `base64.channel.k8s.io` | character n, then base64 | end of the connection | text, only of a failure |
| `v4.base64.channel.k8s.io` | the same | the same | a Status as JSON, always |

The first that a client names and we have is taken. Versions 2 and 3 of `channel.k8s.io` exist on SPDY only. A server sends raw
channels as binary messages and base64 as text, and first of all one without bytes, which says that it is there; it never
sends 255. Clients' messages may be either: the Python client sends strings as text. Empty messages, unknown channels and what
comes for an ended channel are passed over; 255 with anything but one channel that exists ends the session, as does base64
that is none.

Port-forward the old way (none, `v4.channel.k8s.io`, `v4.base64.channel.k8s.io`): the n-th port of the request has channels 2n,
its bytes both ways, and 2n+1, an error as text. The server's first message on each is the port, two bytes, little-endian.
No channel can end alone. The new way (`SPDY/3.1+portforward.k8s.io`; the KEP and early clients: `v2.portforward.k8s.io`):
binary messages are a pipe of bytes, in it SPDY/3.1 as after `Upgrade: SPDY/3.1` with protocol `portforward.k8s.io`; where a
message begins or ends means nothing.

Source: k8s.io/streaming pkg/httpstream/wsstream, k8s.io/cri-streaming remotecommand and portforward, client-go
tools/remotecommand and tools/portforward, kubernetes-client/python stream/ws_client.py, KEP-4006.
"""

import base64
import binascii
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from criollo.errors import Invalid
from criollo.wire.sizes import parse_size
from criollo.wire.websocket import BAD_PAYLOAD, BROKEN, Broken

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
ERROR: Final = 3
RESIZE: Final = 4
EXEC_CHANNELS: Final = 5

_END: Final = 255
_RESIZE_BYTES: Final = 1 << 10
_ZERO: Final = ord("0")


class Subprotocol(NamedTuple):
    """How channels travel. `version` is that of remote command: from 4 on, channel 3 gets a Status as JSON."""

    name: str
    version: int = 1
    is_base64: bool = False

    @property
    def can_end_channels(self) -> bool:
        return self.version >= 5


_KNOWN: Final = {
    found.name: found
    for found in (
        Subprotocol(""),
        Subprotocol("channel.k8s.io"),
        Subprotocol("v4.channel.k8s.io", 4),
        Subprotocol("v5.channel.k8s.io", 5),
        Subprotocol("base64.channel.k8s.io", 1, is_base64=True),
        Subprotocol("v4.base64.channel.k8s.io", 4, is_base64=True),
    )
}
EXEC: Final = tuple(_KNOWN)
FORWARD: Final = ("", "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
TUNNEL: Final = ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io")


def subprotocol(name: str) -> Subprotocol:
    """The subprotocol with channels of this name. Raises KeyError."""
    return _KNOWN[name]


def choose(offered: Sequence[str], known: Collection[str]) -> str:
    """The first subprotocol that both have; empty when the client offers none and that is known too.

    Raises:
        Invalid: they have none in common.
    """
    for name in offered or ("",):
        if name in known:
            return name
    raise Invalid("Sec-WebSocket-Protocol", ", ".join(offered), "one of " + ", ".join(filter(None, known)))


class Chunk(NamedTuple):
    """Bytes of a channel; `ends` where its message ends."""

    channel: int
    payload: bytes
    ends: bool


class ChannelEnded(NamedTuple):
    """No more comes on this channel."""

    channel: int


class Demux:
    """Takes messages apart, in any parts: of the `count` channels there are it gives those that are `wanted`."""

    def __init__(self, kind: Subprotocol, count: int, wanted: Collection[int]) -> None:
        self._kind, self._count, self._wanted = kind, count, frozenset(wanted)
        self._channel: int | None = None  # of the message that has begun
        self._end_signal = b""
        self._base64 = _Base64()

    def receive(self, payload: bytes, *, ends: bool) -> Iterator[Chunk | ChannelEnded]:
        """What a part of a message says.

        Raises:
            Broken: an end of a channel that there is not, or base64 that is none.
        """
        if self._channel is None:
            if not payload:
                return
            first = payload[0]
            self._channel = first - _ZERO if self._kind.is_base64 else first
            payload = payload[1:]
        channel = self._channel
        if channel == _END and self._kind.can_end_channels:
            yield from self._end(payload, ends=ends)
        elif channel in self._wanted:
            if self._kind.is_base64:
                payload = self._base64.decode(payload, ends=ends)
            if payload or ends:
                yield Chunk(channel, payload, ends)
        if ends:
            self._channel = None

    def _end(self, payload: bytes, *, ends: bool) -> Iterator[ChannelEnded]:
        self._end_signal += payload[:2]
        if len(self._end_signal) > 1 or (ends and not self._end_signal):
            raise Broken(BROKEN, "byte 255 must be followed by one channel")
        if ends:
            channel, self._end_signal = self._end_signal[0], b""
            if channel >= self._count:
                raise Broken(BROKEN, f"cannot end channel {channel}: there are {self._count}")
            yield ChannelEnded(channel)


def message(kind: Subprotocol, channel: int, payload: bytes) -> tuple[bytes, bytes]:
    """What goes in front of a message, and its bytes; base64 is sent as text."""
    if kind.is_base64:
        return bytes((_ZERO + channel,)), base64.b64encode(payload)
    return bytes((channel,)), payload


def max_ports(kind: Subprotocol) -> int:
    """How many ports the old port-forward has channels for: in base64 the channel is one character of ASCII."""
    return (128 - _ZERO) // 2 if kind.is_base64 else 128


class Resizes:
    """Reads channel 4."""

    def __init__(self) -> None:
        self._begun = b""

    def receive(self, chunk: Chunk) -> tuple[int, int] | None:
        """Rows and columns, once a message is whole.

        Raises:
            ValueError: the message is no size; the next one may be.
        """
        self._begun = (self._begun + chunk.payload)[: _RESIZE_BYTES + 1]
        if not chunk.ends:
            return None
        document, self._begun = self._begun, b""
        if len(document) > _RESIZE_BYTES:
            raise ValueError(f"over {_RESIZE_BYTES} bytes")
        return parse_size(document) if document else None


class _Base64:
    """Decodes a message that comes in parts: four characters at a time, padding only at its end."""

    def __init__(self) -> None:
        self._rest, self._is_padded = b"", False

    def decode(self, part: bytes, *, ends: bool) -> bytes:
        """Raises Broken."""
        text = self._rest + part.translate(None, b"\r\n")  # Go's decoder passes over them
        whole = len(text) & ~3
        self._rest = text[whole:]
        if (whole and self._is_padded) or (ends and self._rest):
            raise Broken(BAD_PAYLOAD, "malformed base64: its padding is wrong")
        try:
            decoded = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error as error:
            raise Broken(BAD_PAYLOAD, f"malformed base64: {error}") from None
        self._is_padded = not ends and (self._is_padded or text[:whole].endswith(b"="))
        return decoded
