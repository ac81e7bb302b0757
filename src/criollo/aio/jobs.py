"""Named jobs that requests join: a client that hangs up cancels its request, never half-made work.

The first request for a name starts the job, later ones wait for the same result. A job runs in the group of its
owner, not of any request. Its stage says what it is doing; who waits longer than the deadline is told the stage.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from criollo.errors import TimedOut, Unavailable
from criollo.telemetry.log import get_logger

log = get_logger(__name__)
T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work in progress: its name, its stages with their start times, its task."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.stages: list[tuple[str, float]] = [("start", time.monotonic())]
        self.task: asyncio.Task[T] | None = None
        self.waiters = 0

    @property
    def at_stage(self) -> str:
        return self.stages[-1][0]

    def stage(self, name: str) -> None:
        """Say what comes now, e.g. 'sandbox network creation'."""
        self.stages.append((name, time.monotonic()))
        log.debug("stage", job=self.key, stage=name)


class Jobs(Generic[T]):
    """The jobs of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._running: dict[Hashable, Job[T]] = {}
        self._closed = False

    def get(self, key: Hashable) -> Job[T] | None:
        return self._running.get(key)

    def __len__(self) -> int:
        return len(self._running)

    async def join(
        self,
        key: Hashable,
        start: Callable[[Job[T]], Awaitable[T]],
        *,
        orphaned: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """Wait for the job `key`, started by `start(job)` unless one runs already.

        When every waiter has gone the job still ends by itself; `orphaned(result)` is told of a result nobody took.

        Raises:
            Unavailable: the daemon is shutting down.
            whatever the job raises, to every waiter.
        """
        if self._closed:
            raise Unavailable(f"cannot start {self._kind} {key}: shutting down; try again")
        job = self._running.get(key)
        if job is None:
            job = self._running[key] = Job(key)
            job.task = asyncio.get_running_loop().create_task(self._run(job, start, orphaned), name=f"{self._kind} {key}")
        else:
            log.info("joined a running job", kind=self._kind, job=key, stage=job.at_stage)
        assert job.task is not None
        job.waiters += 1
        try:
            return await asyncio.shield(job.task)
        except TimeoutError as error:
            raise TimedOut(f"{self._kind} {key} not yet finished; currently at stage {job.at_stage}") from error
        finally:
            job.waiters -= 1

    async def close(self, *, limit_s: float) -> None:
        """Let running jobs end for `limit_s` seconds, then cancel the rest and wait for their cleanup."""
        self._closed = True
        tasks = [job.task for job in self._running.values() if job.task is not None]
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=limit_s)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)

    async def _run(
        self,
        job: Job[T],
        start: Callable[[Job[T]], Awaitable[T]],
        orphaned: Callable[[T], Awaitable[object]] | None,
    ) -> T:
        try:
            result = await start(job)
        except BaseException as error:
            if not job.waiters and isinstance(error, Exception):
                log.warning("job failed with nobody waiting", kind=self._kind, job=job.key, stage=job.at_stage, error=error)
            raise
        finally:
            del self._running[job.key]
        if not job.waiters and orphaned is not None:
            await orphaned(result)
        return result
