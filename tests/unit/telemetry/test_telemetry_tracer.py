"""Which trails are part of a trace, and the spans they become."""

import contextvars
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.otlp import MESSAGES, attributes

from criollo.telemetry import trail
from criollo.telemetry.tracer import Origin, Tracer, origin_of
from criollo.telemetry.trail import CALL, Trail

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KUBELET = Origin(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled=True, state="v=1", baggage=(("a", "b"),))


def make(per_million: int = 0, limit: int = 100) -> Tracer:
    numbers = itertools.count(1)
    return Tracer(per_million, limit=limit, random=lambda size: next(numbers).to_bytes(size, "big"))


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    made = make()
    trail.listen(made)
    yield made
    trail.leave(made)


def call(tracer: Tracer, origin: Origin | None) -> None:
    """One call with one job, as the server makes them."""

    def work() -> None:
        tracer.arrive(origin)
        with Trail(CALL, "/service/Method"), Trail("a job", "its key") as job:
            job.stage("first")
            trail.program(["/bin/tool", "--secret"], 7, "what for").end(3, "it failed")

    contextvars.copy_context().run(work)


def spans(tracer: Tracer) -> dict[str, Any]:
    return {span.name: span for span in map(MESSAGES["Span"].FromString, tracer.waiting)}


def test_sampled_trace_goes_on_below_the_call(tracer: Tracer) -> None:
    call(tracer, KUBELET)
    found = spans(tracer)
    assert list(found) == ["a job", "first", "run tool", "/service/Method"]
    above = {name: span.parent_span_id for name, span in found.items()}
    assert above == {
        "/service/Method": bytes.fromhex(SPAN),
        "a job": found["/service/Method"].span_id,
        "first": found["a job"].span_id,
        "run tool": found["first"].span_id,
    }
    assert {(span.trace_id.hex(), span.trace_state) for span in found.values()} == {(TRACE, "v=1")}
    assert attributes(found["/service/Method"])["baggage.a"] == "b"
    assert attributes(found["run tool"]) == {
        "process.executable.path": "/bin/tool",
        "process.pid": 7,
        "process.exit.code": 3,
        "criollo.purpose": "what for",
    }
    assert found["run tool"].status.message == "it failed"


@pytest.mark.parametrize("origin", [None, KUBELET._replace(sampled=False)])
def test_rest_is_not_told(tracer: Tracer, origin: Origin | None) -> None:
    call(tracer, origin)
    assert not tracer.waiting


def test_rate_is_kept_and_a_client_that_does_not_sample_is_obeyed() -> None:
    tracer = Tracer(500_000)
    trail.listen(tracer)
    for _ in range(400):
        call(tracer, None)
    trail.leave(tracer)
    traces = {span.trace_id for span in map(MESSAGES["Span"].FromString, tracer.waiting)}
    assert 100 < len(traces) < 300
    tracer.waiting.clear()
    call(tracer, KUBELET._replace(sampled=False))
    assert not tracer.waiting


def test_queue_loses_its_oldest_and_counts_them() -> None:
    tracer = make(1_000_000, limit=6)
    trail.listen(tracer)
    for _ in range(3):
        call(tracer, None)
    trail.leave(tracer)
    assert len(tracer.waiting) == 6
    assert tracer.dropped == 6


def test_metadata_are_read() -> None:
    fields = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "v=1"), ("baggage", "a=b%20c;meta=1, d = e ,f,=g")]
    assert origin_of(fields) == KUBELET._replace(baggage=(("a", "b c"), ("d", "e")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_nonsense_is_no_trace(text: str) -> None:
    assert origin_of([("traceparent", text)]) is None


def test_later_versions_may_say_more() -> None:
    assert origin_of([("traceparent", f"01-{TRACE}-{SPAN}-00-more")]) == Origin(
        bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled=False
    )


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "baggage", "other"]), st.text())), st.text())
def test_any_metadata_are_taken(fields: list[tuple[str, str]], baggage: str) -> None:
    origin_of(fields)
    found = origin_of([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("baggage", baggage)])
    assert found is not None
    assert len(found.baggage) <= 64
