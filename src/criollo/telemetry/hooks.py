"""Where code that has something to tell finds who listens; None while metrics or traces are off, and nothing of them loaded.

if hooks.metrics is not None:
    hooks.metrics.stalled(stage)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from criollo.telemetry.node_metrics import NodeMetrics
    from criollo.telemetry.tracer import Tracer

metrics: "NodeMetrics | None" = None
tracer: "Tracer | None" = None
