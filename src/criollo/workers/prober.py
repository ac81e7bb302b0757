"""Probes of volume sources by processes that stay: a container has several sources, and a fork costs more than a look.

A process does one probe at a time. One that does not answer in time is killed, and only that probe fails; one that has
nothing to do for a while is let go of.
"""

import asyncio
import contextlib
from typing import Final

from criollo.aio.cleanup import cleanup
from criollo.errors import HostFailed, Unavailable
from criollo.workers.fork_server import ForkServer
from criollo.workers.messages import Probe, ProbeJob
from criollo.workers.running import Running

_MAX_RESTING: Final = 4


class Prober:
    """Processes for probes; the last one that rested is the first to work."""

    def __init__(self, server: ForkServer, *, idle_s: float) -> None:
        self._server, self._idle_s = server, idle_s
        self._resting: list[Running] = []
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, job: ProbeJob, timeout_s: float) -> Probe:
        """What a volume source is.

        Raises:
            TimedOut: no answer within `timeout_s` seconds.
            CriolloError: it cannot be looked at.
        """
        what = f"look at volume source {job.path!r}"
        running = self._rested()
        if running is not None:
            running.ask(job, what, timeout_s)
            with contextlib.suppress(Unavailable):  # it was killed while it rested
                return await self._answer(running, what)
        return await self._answer(await self._server.start(job, (), what, timeout_s), what)

    async def _answer(self, running: Running, what: str) -> Probe:
        try:
            answer = await running.outcome()
        finally:
            await self._put_back(running)
        if not isinstance(answer, Probe):
            raise HostFailed(f"cannot {what}: the worker's answer is malformed")
        return answer

    async def close(self) -> None:
        """Let go of all processes that rest."""
        if self._timer is not None:
            self._timer.cancel()
        resting, self._resting = self._resting, []
        for running in resting:
            await running.release()

    def _rested(self) -> Running | None:
        while self._resting:
            running = self._resting.pop()
            if not running.is_gone:
                return running
        return None

    async def _put_back(self, running: Running) -> None:
        if not running.answered or running.is_gone or len(self._resting) >= _MAX_RESTING:
            await cleanup(running.release(), what="end a probe")
            return
        self._resting.append(running)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._let_go)

    def _let_go(self) -> None:
        for running in self._resting:
            running.kill()  # its end is noticed by the loop
        self._resting.clear()
