"""Work that goes on beside the requests: watchers and loops, owned by one block, cancelled when it ends."""

import asyncio
import contextvars
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class Background:
    """A group of tasks without an end of their own.

    A task that fails ends the block with its error: a watcher we have lost is a bug to be loud about, and a restart
    takes the watching up again.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_ending = False

    def start(self, work: Coroutine[Any, Any, object], *, name: str) -> None:
        # Its log lines are its own, not those of the request that happened to start it.
        task = self._group.create_task(work, name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_ending:  # by one that is being cancelled: nobody else would end it
            task.cancel()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ending = True
        for task in self._tasks:
            task.cancel()
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:  # the block's own error is its own: it shall not come back wrapped in a group
                await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
