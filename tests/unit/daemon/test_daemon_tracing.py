"""Spans on their way to a collector that comes, goes and refuses."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.otlp import Collector, running_collector
from support.waiting import until

from criollo.aio import threads
from criollo.aio.background import Background
from criollo.daemon import tracing
from criollo.daemon.selfsigned import make
from criollo.daemon.tracing import BATCH, Exporter, trusted
from criollo.telemetry.otlp import Span, span_bytes
from criollo.telemetry.tracer import Tracer


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy may take longer than a daemon waits at its end."""
    monkeypatch.setattr(tracing, "_FLUSH_S", 60.0)


def fill(tracer: Tracer, count: int) -> None:
    for at in range(count):
        tracer.waiting.append(span_bytes(Span(b"1" * 16, at.to_bytes(8, "big"), b"", "name", 1, 2)))
    tracer.woken()


def test_spans_go_in_batches_and_in_order() -> None:
    async def run() -> None:
        tracer = Tracer(0)
        exporter = Exporter(tracer, "127.0.0.1", collector.port, pause_s=0)
        fill(tracer, 3 * BATCH - 1)
        async with Background() as tasks:
            tasks.start(exporter.run(), name="spans")
            await until(lambda: len(collector.spans) == 3 * BATCH - 1)

    with running_collector() as collector:
        asyncio.run(run())
    assert [int.from_bytes(span.span_id, "big") for span in collector.spans] == list(range(3 * BATCH - 1))
    assert len(collector.resources) == 3


def test_last_spans_are_sent_at_the_end_and_nobody_waits_for_a_collector_that_is_away() -> None:
    async def run(port: int) -> Tracer:
        tracer = Tracer(0)
        exporter = Exporter(tracer, "127.0.0.1", port)
        fill(tracer, 5)
        await exporter.flush()
        return tracer

    with running_collector() as collector:
        assert not asyncio.run(run(collector.port)).waiting
    assert len(collector.spans) == 5
    asyncio.run(run(collector.port))


def test_collector_with_tls_is_trusted_by_the_nodes_store_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make(["localhost", "127.0.0.1"])
    (tmp_path / "ca.pem").write_bytes(pair[0])

    async def send(port: int) -> None:
        tracer = Tracer(0)
        exporter = Exporter(tracer, "localhost", port, tls=await threads.files(trusted))
        fill(tracer, 3)
        await exporter.flush()

    with running_collector(tls=pair) as collector:
        try:
            asyncio.run(send(collector.port))
            assert collector.spans == []
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            asyncio.run(send(collector.port))
        finally:
            threads.close()
        assert len(collector.spans) == 3


def test_a_batch_that_is_refused_for_good_does_not_keep_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = Collector.export, []

    def export(self: Collector, request: Any, context: Any) -> Any:
        if not refused:
            refused.append(request)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "malformed")
        return real(self, request, context)

    monkeypatch.setattr(Collector, "export", export)

    async def run() -> None:
        tracer = Tracer(0)
        exporter = Exporter(tracer, "127.0.0.1", collector.port, pause_s=0)
        fill(tracer, BATCH + 1)
        async with Background() as tasks:
            tasks.start(exporter.run(), name="spans")
            await until(lambda: len(collector.spans) == 1)

    with running_collector() as collector:
        asyncio.run(run())
    assert len(refused) == 1
