"""WebSocket as bytes and events: a server's part of the handshake, and the frames after it, for either side.

    client ── GET, Upgrade: websocket, Sec-WebSocket-Key, -Version: 13, -Protocol: a, b ──▶ server
    client ◀── 101, Sec-WebSocket-Accept, -Protocol: b ── server            then frames both ways, the client's masked

Parsing is wsproto's. A message is handed on in parts as its bytes come, so neither a frame that says it is 2^62 bytes long
nor a message of endless fragments takes memory. Our own frames are one head and one copy of the payload: wsproto makes four.
Source: RFC 6455, sections 4 (handshake), 5 (frames), 7.4 (close codes).
"""

import base64
import binascii
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed, XorMaskerSimple

from criollo.errors import Invalid, Unsupported

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_VERSION: Final = "13"
_KEY_BYTES: Final = 16
_FIN: Final = 0x80
_MASKED: Final = 0x80
_REASON_BYTES: Final = 123  # what a close frame has room for: section 5.5

NORMAL: Final = int(CloseReason.NORMAL_CLOSURE)
GOING_AWAY: Final = int(CloseReason.GOING_AWAY)
BROKEN: Final = int(CloseReason.PROTOCOL_ERROR)
WRONG_TYPE: Final = int(CloseReason.UNSUPPORTED_DATA)
NO_CODE: Final = int(CloseReason.NO_STATUS_RCVD)
BAD_PAYLOAD: Final = int(CloseReason.INVALID_FRAME_PAYLOAD_DATA)


class Broken(ValueError):
    """The other side said something that the protocol does not have; `code` is what to close with."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class Part(NamedTuple):
    """Some bytes of a message; the next part belongs to the same message until one `ends` it."""

    payload: bytes
    is_text: bool = False
    ends: bool = True


class Ping(NamedTuple):
    """Wants a pong with the same bytes."""

    payload: bytes


class Closed(NamedTuple):
    """The other side sends no more."""

    code: int
    reason: str


Event = Part | Ping | Closed


def subprotocols(headers: Mapping[str, str]) -> list[str]:
    """What a client offers, what it likes best first; several header lines are joined by commas."""
    return [name for name in (word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")) if name]


def handshake_key(method: str, headers: Mapping[str, str]) -> str:
    """The key of a client's handshake.

    Raises:
        Unsupported: another version of WebSocket than 13.
        Invalid: the request is no handshake.
    """
    if method != "GET":
        raise Invalid("method of a WebSocket handshake", method, "GET")
    version = headers.get("sec-websocket-version", "").strip()
    if version != _VERSION:
        raise Unsupported(f"cannot speak WebSocket version {version[:20]!r}: this server has version {_VERSION}; send that one")
    key = headers.get("sec-websocket-key", "").strip()
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _KEY_BYTES:
        raise Invalid("Sec-WebSocket-Key", key, f"{_KEY_BYTES} bytes as base64")
    return key


def accept_value(key: str) -> str:
    """What a server answers to a key, to show that it read it."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def switching_head(key: str, subprotocol: str) -> bytes:
    """A server's 101. An empty subprotocol is not named: the client offered none."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {accept_value(key)}")
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class Frames:
    """One side of a WebSocket after the handshake."""

    def __init__(self, *, is_client: bool = False) -> None:
        self._is_client = is_client
        self._parser = FrameProtocol(client=is_client, extensions=[])
        self._has_closed = False

    def receive(self, chunk: bytes) -> Iterator[Event]:
        """What the bytes say; may be fed in any pieces. What follows a close is not looked at.

        Raises:
            Broken: these bytes are no frames that this side may get.
        """
        if self._has_closed:
            return
        self._parser.receive_bytes(chunk)
        try:
            for frame in self._parser.received_frames():
                match frame.payload:
                    case (code, reason):
                        self._has_closed = True
                        yield Closed(int(code), reason)
                    case str(text):
                        yield Part(text.encode(), is_text=True, ends=frame.message_finished)
                    case bytes(payload):
                        if frame.opcode is Opcode.PING:
                            yield Ping(payload)
                        elif frame.opcode is not Opcode.PONG:
                            yield Part(payload, ends=frame.message_finished)
        except ParseFailed as error:
            self._has_closed = True
            raise Broken(int(error.code), str(error)) from None

    def message(self, payload: bytes, *, prefix: bytes = b"", is_text: bool = False) -> bytes:
        """A whole message in one frame: `prefix`, then `payload`."""
        return self._frame(Opcode.TEXT if is_text else Opcode.BINARY, prefix, payload)

    def ping(self) -> bytes:
        """A frame that the other side answers."""
        return self._frame(Opcode.PING, b"", b"")

    def pong(self, payload: bytes) -> bytes:
        """The answer to a ping."""
        return self._frame(Opcode.PONG, b"", payload)

    def close(self, code: int, reason: str = "") -> bytes:
        """The last frame of this side. `NO_CODE` sends none."""
        text = reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore").encode()
        return self._frame(Opcode.CLOSE, b"", b"" if code == NO_CODE else struct.pack("!H", code) + text)

    def _frame(self, opcode: Opcode, prefix: bytes, payload: bytes) -> bytes:
        size, flag = len(prefix) + len(payload), _MASKED if self._is_client else 0
        if size <= 125:
            head = struct.pack("!BB", _FIN | opcode, flag | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", _FIN | opcode, flag | 126, size)
        else:
            head = struct.pack("!BBQ", _FIN | opcode, flag | 127, size)
        if not self._is_client:
            return b"".join((head, prefix, payload))
        mask = os.urandom(4)  # unpredictable: section 5.3
        return b"".join((head, mask, XorMaskerSimple(mask).process(bytearray(prefix + payload))))
