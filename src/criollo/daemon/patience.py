"""How long a start waits for one object: a runtime that hangs must not keep all others from being served."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from criollo.aio.background import Background
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

WAIT_S = 10  # a teardown takes less than one, of hundreds at once a few


async def awhile(tasks: Background, work: Coroutine[Any, Any, object], what: str) -> None:
    """Wait for work on an object, up to a limit; then it goes on in the background. It handles its own errors."""
    done = asyncio.Event()

    async def run() -> None:
        await work
        done.set()

    tasks.start(run(), name=f"recover {what}")
    try:
        async with asyncio.timeout(WAIT_S):
            await done.wait()
    except TimeoutError:
        log.warning("recovery does not come to an end; going on without it", object=what, waited_s=WAIT_S)
