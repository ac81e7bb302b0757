"""Taking turns: many share, or one is alone.

CNI forbids GC while ADD or DEL are in progress (SPEC 1.1.0, section 3, Lifecycle & Ordering).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """Many share, or one is alone; who waits to be alone goes before new sharers."""

    def __init__(self) -> None:
        self._sharing, self._wanted_alone = 0, 0
        self._busy_alone = False
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._busy_alone and not self._wanted_alone)
            self._sharing += 1
        try:
            yield
        finally:
            await self._leave(shared=True)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            self._wanted_alone += 1
            try:
                await self._changed.wait_for(lambda: not self._busy_alone and not self._sharing)
                self._busy_alone = True
            finally:
                self._wanted_alone -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            await self._leave(shared=False)

    async def _leave(self, *, shared: bool) -> None:
        """Never suspends while the condition's lock is free, and nobody holds it across an await."""
        if shared:
            self._sharing -= 1
        else:
            self._busy_alone = False
        async with self._changed:
            self._changed.notify_all()
