"""`GET /metrics`: the page while metrics are on, else a word on how to have them."""

import asyncio

import pytest

from criollo.admin.metrics import metrics_routes
from criollo.aio import threads
from criollo.aio.http_server import Reply, Request
from criollo.telemetry import hooks
from criollo.telemetry.node_metrics import NodeMetrics


def ask(*collectors: str) -> Reply:
    async def run() -> Reply:
        try:
            return await metrics_routes(collectors)["GET", "/metrics"](
                Request(method="GET", path="/metrics", query={}, headers={}, body=b"")
            )
        finally:
            threads.close()

    return asyncio.run(run())


def test_off_says_so() -> None:
    reply = ask()
    assert reply.status == 404
    assert b"enable_metrics = true" in reply.body


def test_page_has_the_wanted_collectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "metrics", NodeMetrics())
    reply = ask("crio_image_pulls_success_total")
    assert reply.content_type.startswith("text/plain; version=0.0.4")
    assert b"container_runtime_crio_image_pulls_success_total 0\n" in reply.body
    assert b"image_pulls_layer_size" not in reply.body
    assert b"image_pulls_layer_size" in ask().body
