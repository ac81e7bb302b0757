"""Named jobs that requests join: a client that hangs up cancels its request, never half-made work.

The first request for a name starts the job, later ones wait for the same result. A job runs in the group of its
owner, not of any request. Its stage says what it is doing; who waits longer than the deadline is told the stage.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

from criollo.errors import CriolloError, Unavailable
from criollo.telemetry import hooks
from criollo.telemetry.log import get_logger
from criollo.telemetry.trail import STARTING, Trail

log = get_logger(__name__)
JOINED: Final = "joined a running job, not yet finished. Currently at stage"  # its second part as CRI-O says it
T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work in progress: its name, its stage, the trail of what it did, its task.

    `collected`: some request has the result. `ended_by`: why it was cancelled, which its waiters are told. `idle_for`: see
    `while_awaited`.
    """

    def __init__(self, key: Hashable, kind: str = "") -> None:
        self.key = key
        self.at_stage = STARTING
        self.trail = Trail(kind, key)
        self.task: asyncio.Task[T] | None = None
        self.waiters = 0
        self.collected = False
        self.ended_by: CriolloError | None = None
        self.idle_for = ""

    @contextlib.contextmanager
    def while_awaited(self, why: str) -> Iterator[None]:
        """For a wait before anything is made, `why` says for what: its last waiter ends the job, and so does a shutdown."""
        self.idle_for = why
        try:
            yield
        finally:
            self.idle_for = ""

    def stage(self, name: str) -> None:
        """Say what comes now, e.g. 'sandbox network creation'."""
        self.at_stage = name
        self.trail.stage(name)
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
        Who is cancelled while waiting finds the stage as a note on its CancelledError.

        Raises:
            Unavailable: the daemon is shutting down.
            whatever the job raises, to every waiter.
        """
        if self._closed:
            raise self._shutting_down(key)
        job = self._running.get(key)
        if job is None:
            job = self._running[key] = Job(key, self._kind)
            work = self._run(job, start, orphaned)
            job.task = asyncio.get_running_loop().create_task(work, name=f"{self._kind} {job.trail.name}")
            job.task.add_done_callback(_look_at)
        else:
            log.info(JOINED, stage=job.at_stage, kind=self._kind, job=key)
            if hooks.metrics is not None:
                hooks.metrics.stalled(self._kind, job.at_stage)
        assert job.task is not None
        job.waiters += 1
        try:
            result = await asyncio.shield(job.task)
        except asyncio.CancelledError as cut:
            job.waiters -= 1
            if not job.task.done() and job.idle_for:
                cut.add_note(f"{self._kind} {key} waited at stage {job.at_stage!r}: {job.idle_for}; ask again")
                if not job.waiters:
                    _cancel(job, Unavailable(f"cannot {self._kind} {key}: {job.idle_for}; try again"))
            elif not job.task.done():
                cut.add_note(f"{self._kind} {key} goes on and is at stage {job.at_stage!r}; ask again")
            elif not job.waiters and not job.collected and not job.task.cancelled() and job.task.exception() is None:
                await _tell(orphaned, job.task.result())  # it ended in the moment of our cancellation
            raise
        except BaseException:
            job.waiters -= 1
            raise
        job.waiters -= 1
        job.collected = True
        return result

    async def abandon(self, key: Hashable, why: CriolloError) -> None:
        """Cancel the job `key`, if there is one, and wait until it has cleaned up; its waiters get `why`."""
        job = self._running.get(key)
        if job is not None and job.task is not None:
            await asyncio.sleep(0)  # one of this moment begins: a task that is cancelled before that never gives its key back
            if self._running.get(key) is job:
                _cancel(job, why)
            await asyncio.wait([job.task])

    async def close(self, *, limit_s: float) -> None:
        """Let running jobs end for `limit_s` seconds, then cancel the rest and wait for their cleanup."""
        self._closed = True
        jobs = {job.task: job for job in self._running.values() if job.task is not None}
        if not jobs:
            return
        for job in jobs.values():
            if job.idle_for:
                _cancel(job, self._shutting_down(job.key))
        _, pending = await asyncio.wait(jobs, timeout=limit_s)
        for task in pending:
            _cancel(jobs[task], self._shutting_down(jobs[task].key))
        if pending:
            await asyncio.wait(pending)

    def _shutting_down(self, key: Hashable) -> Unavailable:
        return Unavailable(f"cannot {self._kind} {key}: the daemon is shutting down; try again")

    async def _run(
        self,
        job: Job[T],
        start: Callable[[Job[T]], Awaitable[T]],
        orphaned: Callable[[T], Awaitable[object]] | None,
    ) -> T:
        try:
            with job.trail:
                result = await start(job)
        except asyncio.CancelledError:
            if job.ended_by is not None:
                raise job.ended_by from None
            raise
        except Exception as error:
            if not job.waiters:
                log.warning("job failed with nobody waiting", kind=self._kind, job=job.key, stage=job.at_stage, error=error)
            raise
        finally:
            del self._running[job.key]
        if not job.waiters:
            await _tell(orphaned, result)
        return result


def _cancel(job: Job[T], why: CriolloError) -> None:
    if job.ended_by is None and job.task is not None:
        job.ended_by = why
        job.trail.fail(why)
        job.task.cancel()


def _look_at(task: asyncio.Task[T]) -> None:
    """An error that no waiter takes has been told by the job: asyncio need not report it as forgotten."""
    if not task.cancelled():
        task.exception()


async def _tell(orphaned: Callable[[T], Awaitable[object]] | None, result: T) -> None:
    if orphaned is not None:
        await orphaned(result)
