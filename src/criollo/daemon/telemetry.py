"""What the daemon tells of itself: the chronicle, metrics and traces where the settings ask; the rest stays unloaded.

The chronicle, too, comes with the first thing that it could tell of.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from criollo.engine.opening import Engine
from criollo.telemetry import trail
from criollo.telemetry.trail import Trail

if TYPE_CHECKING:
    from pathlib import Path

    from criollo.model.container import Container
    from criollo.pods.history import History


@asynccontextmanager
async def telemetry_on(engine: Engine) -> AsyncIterator[None]:
    """Remember, count and trace while the block runs.

    Raises:
        Invalid, HostFailed: the port of metrics or the collector's address does not let us.
    """
    memory = _Memory(engine)
    async with AsyncExitStack() as stack:
        stack.callback(memory.close)
        if engine.settings.metrics.enable_metrics:
            from criollo.daemon.metrics_port import metrics_on  # 0.5 MiB

            await stack.enter_async_context(metrics_on(engine.settings, engine.pods))
        if engine.settings.tracing.enable_tracing:
            from criollo.daemon.tracing import tracing_on

            await stack.enter_async_context(tracing_on(engine.settings.tracing))
        if engine.settings.profile.is_asked_for:
            from criollo.daemon.profiling import profiling_on

            await stack.enter_async_context(profiling_on(engine.settings.profile))
        yield


class _Memory:
    """Waits for the first work, unless there are pods already; then the chronicle takes its place."""

    def __init__(self, engine: Engine) -> None:
        self._pods = engine.pods
        self._pods.remember = self.history
        self._history: History | None = None
        trail.listen(self)
        if any(True for _ in self._pods.state.pods):
            self.history()

    def history(self) -> "History":
        """What is remembered; from now on, if nothing was yet."""
        if self._history is None:
            from criollo.pods.history import History
            from criollo.telemetry.chronicle import Chronicle

            trail.leave(self)
            self._history = History(self._pods.state, Chronicle())
            self._history.watch_memory(self._pods.containers.places.bundle, self._events)
            trail.listen(self._history.chronicle)
        return self._history

    def _events(self, container: "Container") -> "Path | None":
        from criollo.containers.watch import cgroup_of
        from criollo.monitor.oom import events_file

        return events_file(self._pods.containers.hierarchies, cgroup_of(self._pods.containers, container))

    def begun(self, begins: Trail) -> None:
        self.history().chronicle.begun(begins)

    def ended(self, ends: Trail) -> None:
        """Of work that began before there was anybody to tell."""

    def close(self) -> None:
        trail.leave(self)
        if self._history is not None:
            trail.leave(self._history.chronicle)
            self._history.close()
        self._pods.remember = None
