"""What the daemon tells of itself: the chronicle always, metrics and traces where the settings ask; the rest stays unloaded."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from criollo.engine.opening import Engine
from criollo.pods.history import History
from criollo.telemetry import trail
from criollo.telemetry.chronicle import Chronicle


@asynccontextmanager
async def telemetry_on(engine: Engine) -> AsyncIterator[None]:
    """Remember, count and trace while the block runs.

    Raises:
        Invalid, HostFailed: the port of metrics or the collector's address does not let us.
    """
    chronicle = Chronicle()
    engine.pods.history = History(engine.pods.state, chronicle)
    trail.listen(chronicle)
    async with AsyncExitStack() as stack:
        stack.callback(trail.leave, chronicle)
        if engine.settings.metrics.enable_metrics:
            from criollo.daemon.metrics_port import metrics_on  # 0.5 MiB

            await stack.enter_async_context(metrics_on(engine.settings, engine.pods))
        if engine.settings.tracing.enable_tracing:
            from criollo.daemon.tracing import tracing_on

            await stack.enter_async_context(tracing_on(engine.settings.tracing))
        yield
