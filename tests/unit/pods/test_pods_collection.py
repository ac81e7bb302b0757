"""The loop that collects numbers: what fails there ends nothing else."""

import asyncio
from typing import Any

import pytest

from criollo.errors import HostFailed
from criollo.pods import collection


class _Collector:
    lasts_ns = 0


class _Containers:
    collector = _Collector()


class _Pods:
    collected: object = None
    containers = _Containers()


class _Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, message: str, **_: object) -> None:
        self.lines.append(f"warning: {message}")

    def info(self, message: str, **_: object) -> None:
        self.lines.append(f"info: {message}")


def test_loop_outlives_failures_and_tells_the_first_and_the_end_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Exception | None] = [RuntimeError("can't start new thread"), HostFailed("x"), None, None]
    told = _Told()
    pods: Any = _Pods()

    async def collect(*_: object) -> None:
        error = failures.pop(0)
        if not failures:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        if error is not None:
            raise error

    monkeypatch.setattr(collection, "collect", collect)
    monkeypatch.setattr(collection, "log", told)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(collection.collect_forever(pods, 0))
    assert told.lines == [
        "warning: statistics cannot be collected; trying again each period",
        "info: statistics are collected again",
    ]
    assert pods.collected is None
    assert pods.containers.collector.lasts_ns == 0
