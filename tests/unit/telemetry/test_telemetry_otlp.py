"""Spans as bytes, read by protobuf's own decoder."""

from hypothesis import given
from hypothesis import strategies as st
from support.otlp import MESSAGES, attributes

from criollo.telemetry.otlp import Span, SpanKind, rejected_spans, request_bytes, span_bytes

_VALUES = st.one_of(
    st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    trace_id=st.binary(min_size=16, max_size=16),
    parent_id=st.sampled_from([b"", b"12345678"]),
    name=_TEXTS,
    begun_ns=st.integers(0, 2**63),
    took_ns=st.integers(0, 2**60),
    kind=st.sampled_from(SpanKind),
    told=st.dictionaries(_TEXTS.filter(bool), st.one_of(_TEXTS, _VALUES.filter(lambda value: not isinstance(value, str)))),
    failure=st.one_of(st.none(), _TEXTS),
)
def test_any_span_is_read_as_it_was(
    trace_id: bytes,
    parent_id: bytes,
    name: str,
    begun_ns: int,
    took_ns: int,
    kind: SpanKind,
    told: dict[str, str | bool | int | float],
    failure: str | None,
) -> None:
    span = Span(
        trace_id, b"abcdefgh", parent_id, name, begun_ns, begun_ns + took_ns, kind, "a=b", attributes=told, failure=failure
    )
    read = MESSAGES["Span"].FromString(span_bytes(span))
    assert (read.trace_id, read.span_id, read.parent_span_id, read.trace_state) == (trace_id, b"abcdefgh", parent_id, "a=b")
    assert (read.name, read.kind) == (name, kind)
    assert (read.start_time_unix_nano, read.end_time_unix_nano) == (begun_ns, begun_ns + took_ns)
    assert attributes(read) == told
    assert (read.status.code, read.status.message) == ((2, failure) if failure is not None else (0, ""))


def test_request_names_resource_and_scope() -> None:
    span = span_bytes(Span(b"1" * 16, b"2" * 8, b"", "name", 1, 2))
    read = MESSAGES["Request"].FromString(
        request_bytes({"service.name": "crio", "process.pid": 300}, "scope", "1", [span, span])
    )
    [resource] = read.resource_spans
    assert attributes(resource.resource) == {"service.name": "crio", "process.pid": 300}
    [scope] = resource.scope_spans
    assert (scope.scope.name, scope.scope.version, len(scope.spans)) == ("scope", "1", 2)


def test_refused_spans_are_read() -> None:
    answer = MESSAGES["Response"]()
    assert rejected_spans(answer.SerializeToString()) == 0
    answer.partial_success.error_message = "no"
    answer.partial_success.rejected_spans = 300
    assert rejected_spans(answer.SerializeToString()) == 300


@given(st.binary(max_size=200))
def test_any_answer_is_taken(answer: bytes) -> None:
    assert isinstance(rejected_spans(answer), int)
