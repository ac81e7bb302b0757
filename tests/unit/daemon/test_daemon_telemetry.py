"""What is switched on with the daemon, and off again with it."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from criollo.config.settings import defaults
from criollo.config.telemetry import Metrics, Tracing
from criollo.daemon.telemetry import telemetry_on
from criollo.engine.opening import Engine
from criollo.pods.history import History
from criollo.state.records import State
from criollo.telemetry import hooks
from criollo.telemetry.trail import Trail


def run(tmp_path: Path, **tables: Any) -> tuple[bool, bool]:
    """Whether metrics and traces are on with these tables."""

    async def main() -> tuple[bool, bool]:
        settings = msgspec.structs.replace(defaults(systemd=False), **tables)
        with contextlib.closing(State(tmp_path / "state.db")) as state:
            handlers = SimpleNamespace(default="crun")
            containers = SimpleNamespace(handlers=handlers, blocked_calls={}, places=SimpleNamespace(bundle=Path))
            pods = SimpleNamespace(state=state, events=None, remember=None, containers=containers)
            engine = cast(Engine, SimpleNamespace(settings=settings, pods=pods))
            async with telemetry_on(engine):
                with Trail("work", "nobody's"):
                    pass
                assert isinstance(pods.remember(), History)
                return hooks.metrics is not None, hooks.tracer is not None

    try:
        return asyncio.run(main())
    finally:
        assert hooks.metrics is None
        assert hooks.tracer is None


def test_the_chronicle_begins_with_the_first_work_and_ends_with_the_block(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(State(tmp_path / "state.db")) as state:
            before = state.pods.changed
            containers = SimpleNamespace(places=SimpleNamespace(bundle=Path))
            pods = SimpleNamespace(state=state, events=None, remember=None, containers=containers)
            engine = cast(Engine, SimpleNamespace(settings=defaults(systemd=False), pods=pods))
            async with telemetry_on(engine):
                assert state.pods.changed == before
                with Trail("run pod sandbox", "one") as work:
                    assert state.pods.changed != before
                    work.stage("network")
                with Trail("run pod sandbox", "two"):
                    pass
            assert pods.remember is None
            with Trail("run pod sandbox", "three"):
                pass

    asyncio.run(main())


def test_only_what_is_asked_for_is_on(tmp_path: Path) -> None:
    assert run(tmp_path) == (False, False)
    assert run(tmp_path, metrics=Metrics(enable_metrics=True, metrics_port=0)) == (True, False)
    assert run(tmp_path, tracing=Tracing(enable_tracing=True)) == (False, True)
