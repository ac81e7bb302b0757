"""Results whose client went away before the answer: nobody sees them, and unless it asks again in time they are torn down."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from criollo.aio.background import Background
from criollo.aio.jobs import Job, Jobs
from criollo.errors import CriolloError
from criollo.telemetry.log import get_logger

log = get_logger(__name__)
T = TypeVar("T", bound=str)


class Uncollected(Generic[T]):
    """What becomes of a result, an id, that no request took: it is in `ids` for `keep_s` seconds, then `tear_down(id)`."""

    def __init__(self, ids: set[str], tasks: Background, *, keep_s: float, tear_down: Callable[[T], Awaitable[object]]) -> None:
        self._ids, self._tasks, self._keep_s, self._tear_down = ids, tasks, keep_s, tear_down

    async def join(self, jobs: Jobs[T], key: Hashable, start: Callable[[Job[T]], Awaitable[T]]) -> T:
        """`Jobs.join`; what it returns is collected."""
        made = await jobs.join(key, start, orphaned=self._orphaned)
        self._ids.discard(made)
        return made

    async def _orphaned(self, made: T) -> None:
        self._ids.add(made)
        self._tasks.start(self._expire(made), name=f"uncollected {made}")

    async def _expire(self, made: T) -> None:
        await asyncio.sleep(self._keep_s)
        if made in self._ids:
            log.warning("nobody asked for it again; removing it", id=made)
            try:
                await self._tear_down(made)  # at once REMOVING: nobody can collect it any more
            except (CriolloError, OSError) as error:
                log.warning("cannot remove it; the sweeper will retry", id=made, error=error)
            self._ids.discard(made)
