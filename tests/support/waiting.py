"""Waiting on a loop for what others bring about; `support.daemon.wait_for` is for tests without one."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], T], limit_s: float = 20) -> T:
    """What the condition gives as soon as it holds; fails after the limit."""
    async with asyncio.timeout(limit_s):
        while not (found := condition()):
            await asyncio.sleep(0.002)
    return found
