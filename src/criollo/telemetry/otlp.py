"""Spans as the bytes that OpenTelemetry collectors take: protobuf by hand, because it is three dozen fields. Pure.

Source: opentelemetry-proto 1.x, trace/v1/trace.proto, collector/trace/v1/trace_service.proto; field numbers stand at their use.
"""

import enum
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.12.0"
_BYTES, _FIXED64 = 2, 1  # wire types beside 0, the number

Value = str | bool | int | float


class SpanKind(enum.IntEnum):
    """Span.SpanKind."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Span(NamedTuple):
    """One span. Ids are 16 and 8 bytes; `parent_id` is empty for the first of a trace. A `failure` makes it an error."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    begun_ns: int
    ended_ns: int
    kind: SpanKind = SpanKind.INTERNAL
    state: str = ""
    attributes: Mapping[str, Value] = {}
    failure: str | None = None


def span_bytes(span: Span) -> bytes:
    """The message Span."""
    parts = [_bytes(1, span.trace_id), _bytes(2, span.span_id), _text(3, span.state), _bytes(4, span.parent_id)]
    parts += [_text(5, span.name), _number(6, span.kind), _fixed64(7, span.begun_ns), _fixed64(8, span.ended_ns)]
    parts += [_bytes(9, _pair(key, value)) for key, value in span.attributes.items()]
    if span.failure is not None:
        parts.append(_bytes(15, _text(2, span.failure) + _number(3, 2)))  # STATUS_CODE_ERROR
    return b"".join(parts)


def request_bytes(resource: Mapping[str, Value], scope: str, version: str, spans: Iterable[bytes]) -> bytes:
    """The message ExportTraceServiceRequest: spans of one resource and one scope."""
    attributes = b"".join(_bytes(1, _pair(key, value)) for key, value in resource.items())
    scoped = _bytes(1, _text(1, scope) + _text(2, version)) + b"".join(_bytes(2, span) for span in spans)
    return _bytes(1, _bytes(1, attributes) + _bytes(2, scoped) + _text(3, SCHEMA))


def rejected_spans(answer: bytes) -> int:
    """How many spans an ExportTraceServiceResponse says were not taken; 0 for an answer that says nothing we read."""
    partial = _field(answer, 1)
    found = _field(partial, 1) if isinstance(partial, bytes) else 0
    return found if isinstance(found, int) else 0


def _pair(key: str, value: Value) -> bytes:
    """The message KeyValue."""
    if isinstance(value, bool):
        told = _tag(2, 0) + _varint(int(value))
    elif isinstance(value, int):
        told = _tag(3, 0) + _varint(value & (1 << 64) - 1)
    elif isinstance(value, float):
        told = _tag(4, _FIXED64) + struct.pack("<d", value)
    else:
        raw = value.encode("utf-8", "replace")
        told = _tag(1, _BYTES) + _varint(len(raw)) + raw
    return _text(1, key) + _bytes(2, told)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(number: int, value: int) -> bytes:
    return _tag(number, 0) + _varint(value) if value else b""


def _fixed64(number: int, value: int) -> bytes:
    return _tag(number, _FIXED64) + (value & (1 << 64) - 1).to_bytes(8, "little")


def _bytes(number: int, value: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(value)) + value if value else b""


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode("utf-8", "replace"))


def _field(message: bytes, wanted: int) -> bytes | int | None:
    """The first field of that number; None when there is none, or the message is malformed before it."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        value: bytes | int
        if wire_type == 0:
            value, at = _read_varint(message, at)
        elif wire_type == _BYTES:
            size, at = _read_varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            width = {1: 8, 5: 4}.get(wire_type, len(message))
            value, at = message[at : at + width], at + width
        if number == wanted:
            return value
    return None


def _read_varint(message: Sequence[int], at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        octet, at = message[at], at + 1
        value |= (octet & 0x7F) << shift
        if not octet & 0x80:
            break
    return value, at
