"""Traces: which trail is part of one, and its spans once it has ended.

A call continues the trace of its client (W3C `traceparent`, `tracestate`, `baggage` in the metadata) and is sampled if that
is; without one, as many of a million are as the settings say. A job belongs to the call that started it; its stages, programs
and waits are spans below it. Spans wait as bytes in a queue of `MAX_WAITING`, which loses its oldest and counts them: nobody
ever waits for a collector.

Source: W3C Trace Context, level 1; W3C Baggage; OpenTelemetry, ParentBased and TraceIdRatioBased.
"""

import contextvars
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from criollo.telemetry.otlp import Span, SpanKind, Value, span_bytes
from criollo.telemetry.told import bounded
from criollo.telemetry.trail import CALL, STAGE, Step, Trail

MAX_WAITING: Final = 2048
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_CHARACTERS, _BAGGAGE_CHARACTERS, _BAGGAGE_PAIRS = 512, 8192, 64
_TEXT: Final = 500


class Origin(NamedTuple):
    """What a client said of its trace. `baggage`: its pairs."""

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: str = ""
    baggage: tuple[tuple[str, str], ...] = ()


class Place(NamedTuple):
    """A trail's place in a sampled trace."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    state: str
    baggage: tuple[tuple[str, str], ...]


def origin_of(fields: Iterable[tuple[str, str]]) -> Origin | None:
    """What the metadata of a call say; None when there is no trace, or nonsense."""
    found = {name: value for name, value in fields if name in ("traceparent", "tracestate", "baggage")}
    match = _PARENT.fullmatch(found.get("traceparent", "")[:200])
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = bytes.fromhex(match[2]), bytes.fromhex(match[3])
    if not any(trace_id) or not any(span_id):
        return None
    state = found.get("tracestate", "")
    return Origin(
        trace_id,
        span_id,
        sampled=bool(int(match[4], 16) & 1),
        state=state if len(state) <= _STATE_CHARACTERS and state.isprintable() else "",
        baggage=tuple(_pairs(found.get("baggage", ""))),
    )


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    if len(text) > _BAGGAGE_CHARACTERS:
        return
    for member in text.split(",")[:_BAGGAGE_PAIRS]:
        key, equals, value = member.partition(";")[0].partition("=")
        if equals and key.strip():
            yield key.strip(), bounded(unquote(value.strip(), errors="replace"), _TEXT)


class Tracer:
    """A `trail.Listener` that turns sampled trails into spans. `random(n)` gives n bytes."""

    def __init__(self, per_million: int, *, limit: int = MAX_WAITING, random: Callable[[int], bytes] = os.urandom) -> None:
        self._bound = per_million * (1 << 63) // 1_000_000
        self._random = random
        self._origin: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("origin", default=None)
        self.waiting: deque[bytes] = deque(maxlen=limit)
        self.dropped = 0
        self.woken: Callable[[], None] = lambda: None

    def read(self, fields: Iterable[tuple[str, str]]) -> Origin | None:
        """What the metadata of a call say of its trace."""
        return origin_of(fields)

    def arrive(self, origin: Origin | None) -> None:
        """The call that begins next in this context has come with these words."""
        self._origin.set(origin)

    def begun(self, trail: Trail) -> None:
        above = trail.parent
        if above is not None:
            if isinstance(above.span, Place):
                trail.span = Place(above.span.trace_id, self._random(8), above.span.span_id, above.span.state, ())
            return
        origin = self._origin.get() if trail.kind == CALL else None
        if origin is not None:
            if origin.sampled:
                trail.span = Place(origin.trace_id, self._random(8), origin.span_id, origin.state, origin.baggage)
        elif self._bound:
            trace_id = self._random(16)
            if int.from_bytes(trace_id[8:], "big") >> 1 < self._bound:
                trail.span = Place(trace_id, self._random(8), b"", "", ())

    def ended(self, trail: Trail) -> None:
        if not isinstance(trail.span, Place):
            return
        for span in self._spans(trail, trail.span):
            if len(self.waiting) == self.waiting.maxlen:
                self.dropped += 1
            self.waiting.append(span_bytes(span))
        self.woken()

    def _spans(self, trail: Trail, place: Place) -> Iterator[Span]:
        stage_id = place.span_id
        yield Span(
            place.trace_id,
            place.span_id,
            place.parent_id,
            trail.name if trail.kind == CALL else trail.kind,
            trail.begun_ns,
            _at(trail, trail.ended),
            kind=SpanKind.SERVER if trail.kind == CALL else SpanKind.INTERNAL,
            state=place.state,
            attributes=_of_call(trail.name, place) if trail.kind == CALL else {"criollo.job": bounded(trail.name, _TEXT)},
            failure=bounded(trail.error, _TEXT) if trail.error else None,
        )
        for step in trail.steps:
            span_id = self._random(8)
            parent_id = place.span_id if step.kind == STAGE else stage_id
            if step.kind == STAGE:
                stage_id = span_id
            yield _of_step(trail, step, place, span_id=span_id, parent_id=parent_id)


def _of_step(trail: Trail, step: Step, place: Place, *, span_id: bytes, parent_id: bytes) -> Span:
    attributes: dict[str, Value] = {}
    name = bounded(step.name, _TEXT)
    if step.argv:  # never its arguments: the name says what for
        path = bounded(step.argv[0], _TEXT)
        attributes = {"process.executable.path": path, "process.pid": step.pid, "criollo.purpose": name}
        name = f"run {path.rpartition('/')[2]}"
        if step.status is not None:
            attributes["process.exit.code"] = step.status
    return Span(
        place.trace_id,
        span_id,
        parent_id,
        name,
        _at(trail, step.started),
        _at(trail, step.ended or trail.ended),
        state=place.state,
        attributes=attributes,
        failure=bounded(step.said, _TEXT) if step.status else None,
    )


def _of_call(path: str, place: Place) -> dict[str, Value]:
    service, _, method = path.lstrip("/").rpartition("/")
    told: dict[str, Value] = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return told | {f"baggage.{key}": value for key, value in place.baggage}


def _at(trail: Trail, monotonic_s: float) -> int:
    return trail.begun_ns + int((monotonic_s - trail.started) * 1e9)
