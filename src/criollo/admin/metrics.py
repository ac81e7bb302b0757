"""The page of metrics: `GET /metrics`, on the port of metrics and on the daemon's own socket."""

from collections.abc import Sequence

from criollo.aio import threads
from criollo.aio.http_server import Reply, Request, Routes, text
from criollo.telemetry import hooks


def metrics_routes(collectors: Sequence[str] = ()) -> Routes:
    """The route, which shows the collectors that are named; empty: all. The page counts zombies in `/proc`: in a thread."""

    async def page(request: Request) -> Reply:
        counted = hooks.metrics
        if counted is None:
            return text(404, "metrics are off; set enable_metrics = true in [crio.metrics]")
        from criollo.telemetry.metrics import CONTENT_TYPE  # here, because it is loaded where metrics are on
        from criollo.telemetry.node_metrics import chosen

        wanted, _ = chosen(collectors)
        return Reply(body=(await threads.files(counted.page, wanted)).encode(), content_type=CONTENT_TYPE)

    return {("GET", "/metrics"): page}
