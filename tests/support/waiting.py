"""Waiting on a loop for what others bring about; `support.daemon.wait_for` is for tests without one."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import pytest

from criollo.aio import threads

T = TypeVar("T")

PATIENCE_S: Final = 60


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, in a loop of its own, whose threads end with it; fails after a minute."""

    async def limited() -> T:
        async with asyncio.timeout(PATIENCE_S):
            return await work

    try:
        return asyncio.run(limited())
    finally:
        threads.close()


async def skip_ahead_when(condition: Callable[[], object], seconds: float) -> None:
    """Limits that stand when the condition comes true pass then, and not before on any machine; see `skip_ahead`."""
    await until(condition)
    skip_ahead(seconds)


def skip_ahead(seconds: float) -> None:
    """The running loop's clock jumps: limits within so many seconds have passed, long ones too, however slow the machine."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds


async def until(condition: Callable[[], T], limit_s: float = PATIENCE_S) -> T:
    """What the condition gives as soon as it holds; fails after the limit."""
    async with asyncio.timeout(limit_s):
        while not (found := condition()):
            await asyncio.sleep(0.002)
    return found


async def cancelled_within(
    monkeypatch: pytest.MonkeyPatch, holder: object, name: str, work: Coroutine[Any, Any, object]
) -> None:
    """Cancel `work` while a thread is in its first call of `holder.name`; the call goes on and ends well."""
    begun, go = threading.Event(), threading.Event()
    call = getattr(holder, name)

    def held(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(PATIENCE_S)
        return call(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(holder, name, held)
        task = asyncio.get_running_loop().create_task(work)
        await until(begun.is_set)
        task.cancel()
        go.set()
        await asyncio.wait([task])
    assert task.cancelled()


class Lingering:
    """What a server runs for a connection: it has `begun`, and once it is cancelled it ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def serve(self, transport: asyncio.Transport, *_: object) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()
            transport.abort()
