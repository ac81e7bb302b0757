"""Looks at what may hang by processes that stay: a container has several volumes, and a fork costs more than a look.

A process does one look at a time. One that does not answer in time is killed, and only that look fails; one that has
nothing to do for a while is let go of.
"""

import asyncio
import contextlib
from typing import Final, TypeVar

from criollo.aio.cleanup import cleanup
from criollo.errors import HostFailed, Unavailable
from criollo.workers.fork_server import ForkServer
from criollo.workers.messages import Devices, Duplicated, Look, Probe
from criollo.workers.running import Running

_MAX_RESTING: Final = 4

A = TypeVar("A", Probe, Devices, Duplicated)


class Prober:
    """Processes for looks; the last one that rested is the first to work."""

    def __init__(self, server: ForkServer, *, idle_s: float) -> None:
        self._server, self._idle_s = server, idle_s
        self._resting: list[Running] = []
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, job: Look, kind: type[A], what: str, *, timeout_s: float) -> A:
        """The answer to a look; `what` is for messages.

        Raises:
            TimedOut: no answer within `timeout_s` seconds.
            CriolloError: it cannot be looked at.
        """
        running = self._rested()
        if running is not None:
            running.ask(job, what, timeout_s)
            with contextlib.suppress(Unavailable):  # it was killed while it rested
                return await self._answer(running, kind, what)
        return await self._answer(await self._server.start(job, (), what, timeout_s), kind, what)

    async def _answer(self, running: Running, kind: type[A], what: str) -> A:
        try:
            answer = await running.outcome()
        finally:
            await self._put_back(running)
        if not isinstance(answer, kind):
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
