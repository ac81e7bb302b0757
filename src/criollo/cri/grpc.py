"""The gRPC wire format over HTTP/2: message prefix, deadlines, status texts. Pure functions.

A message is one byte (compressed or not), four bytes of length, big-endian, then the message.
Source: grpc/doc/PROTOCOL-HTTP2.md.
"""

import re
from typing import Final
from urllib.parse import quote, unquote

from criollo.cri.errors import Code, Refused
from criollo.wire.hpack import encode

PREFIX_BYTES = 5
CONTENT_TYPE = "application/grpc"
STATUS, MESSAGE, TIMEOUT = "grpc-status", "grpc-message", "grpc-timeout"
RESPONSE_HEAD: Final = encode([(":status", "200"), ("content-type", CONTENT_TYPE)])
OK_TRAILERS: Final = encode([(STATUS, "0")])

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TEXT_KEPT = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # printable ASCII but the percent sign


def pack(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def announced(data: bytes | bytearray) -> int | None:
    """Length of the message that begins here, None while the prefix is not complete.

    Raises Refused when it is compressed.
    """
    if len(data) < PREFIX_BYTES:
        return None
    if data[0]:
        raise Refused(Code.UNIMPLEMENTED, "compressed messages are not supported; send with identity encoding")
    return int.from_bytes(data[1:PREFIX_BYTES], "big")


def unpack(body: bytes | bytearray) -> bytes:
    """The one message a body must hold. Raises Refused for any other body."""
    length = announced(body)
    if length is None:
        raise Refused(Code.INVALID_ARGUMENT, "the call ended before its message; send one message")
    if length != len(body) - PREFIX_BYTES:
        text = f"the message was announced with {length} bytes but the call sent {len(body) - PREFIX_BYTES}; send one message"
        raise Refused(Code.INVALID_ARGUMENT, text)
    return bytes(memoryview(body)[PREFIX_BYTES:]) if length else b""


def timeout_s(text: str) -> float:
    """Seconds of a `grpc-timeout` header. Raises Refused when malformed."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise Refused(Code.INVALID_ARGUMENT, "malformed grpc-timeout header: expected up to 8 digits and one of HMSmun")
    return int(match[1]) * _UNIT_S[match[2]]


def encode_timeout(seconds: float) -> str:
    """The `grpc-timeout` header for a time from now on."""
    micros = max(0, int(seconds * 1e6))
    for unit, size in (("u", 1), ("m", 1000), ("S", 1_000_000), ("M", 60_000_000)):
        if micros // size < 10**8:
            return f"{micros // size}{unit}"
    return "99999999M"


def encode_text(text: str) -> str:
    """A status text as a header may carry it: percent-encoded UTF-8; what is none is shown as an escape."""
    return quote(text, safe=_TEXT_KEPT, errors="backslashreplace")


def decode_text(text: str) -> str:
    return unquote(text, errors="replace")


def status(code: Code, text: str = "") -> list[tuple[str, str]]:
    """Trailers that end a call."""
    return [(STATUS, str(int(code)))] + ([(MESSAGE, encode_text(text))] if text else [])


def refusal(code: Code, text: str, *, is_first: bool) -> bytes:
    """A block that ends a call which did not go well: trailers, or all there is when it `is_first`."""
    return (RESPONSE_HEAD if is_first else b"") + encode(status(code, text))


def request_head(path: str, timeout_s: float | None) -> bytes:
    """The block that begins a call."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    fields += [("te", "trailers"), ("content-type", CONTENT_TYPE)]
    return encode(fields if timeout_s is None else [*fields, (TIMEOUT, encode_timeout(timeout_s))])
