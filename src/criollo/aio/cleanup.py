"""Cleaning up while the world says stop: shielded from cancellation, limited in time."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def cleanup(work: Coroutine[Any, Any, object], *, limit_s: float = 60, what: str = "") -> None:
    """Run `work` to its end, whoever cancels us meanwhile; a failure is logged, never raised.

    For `except`/`finally` blocks: the first error stays the one that is told. Where there is none, a cancellation that came
    meanwhile is raised at the end. What cannot be cleaned up keeps its row, and the sweeper retries it.
    """
    task = asyncio.get_running_loop().create_task(_limited(work, limit_s, what))
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                break
            is_cancelled = True
    if is_cancelled and sys.exc_info()[1] is None:
        raise asyncio.CancelledError


def heed_cancel() -> None:
    """For loops that never end and survive errors: stop now if the task was cancelled while `cleanup` told an error instead.

    Raises:
        CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _limited(work: Coroutine[Any, Any, object], limit_s: float, what: str) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await work
    except Exception as error:
        log.warning("cleanup failed; the sweeper will retry", what=what, error=error)
