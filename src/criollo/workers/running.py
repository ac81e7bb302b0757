"""A job's process as the daemon sees it: answers arrive on a socket, letting go of the socket kills it.

No task watches it: the loop calls back when a packet is there, when the time without progress is over, and when the
socket ends, which means that the process is gone.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from criollo import errors
from criollo.aio.cleanup import cleanup
from criollo.errors import CriolloError, HostFailed, TimedOut, Unavailable
from criollo.telemetry.log import get_logger
from criollo.workers.messages import MAX_FDS, MAX_PACKET_BYTES, Answer, Ended, Failed, Job, Progress, Result

log = get_logger(__name__)

KILL_LIMIT_S: Final = 10.0

_decode: Callable[[bytes], Answer] = msgspec.json.Decoder(Answer).decode
_encode = msgspec.json.Encoder().encode


class Running:
    """A job's process: its answers arrive on a socket, read on the loop; letting go of the socket kills it."""

    def __init__(self, answers: socket.socket, what: str, stall_s: float, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._answers, self._what, self._stall_s = answers, what, stall_s
        self._outcome: asyncio.Future[Result] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._status: int | None = None
        self.answered = False  # by the process itself, which has then finished the job
        self._fds: list[int] = []  # came with the answer
        self._limit = self._loop.call_later(stall_s, self._stalled)
        self._loop.add_reader(answers.fileno(), self._readable)

    async def outcome(self) -> Result:
        """The job's result, or its error."""
        return await asyncio.shield(self._outcome)

    def ask(self, job: Job, what: str, stall_s: float) -> None:
        """Put the next job to a process that does several, after the outcome of the last one was taken."""
        self._what, self._stall_s, self.answered = what, stall_s, False
        self._outcome = self._loop.create_future()
        self._limit = self._loop.call_later(stall_s, self._stalled)
        with contextlib.suppress(OSError):  # it is gone: the end of the socket says so
            self._answers.send(_encode(job), socket.MSG_DONTWAIT)

    @property
    def is_gone(self) -> bool:
        return self._gone.done()

    def take_fds(self) -> list[int]:
        """The descriptors that came with the outcome, for the caller to close. Those that nobody takes go with the process."""
        fds, self._fds = self._fds, []
        return fds

    @contextlib.asynccontextmanager
    async def held(self, is_dying: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
        """Keep the job for a block; afterwards its process is gone.

        Where the block fails because the process `is_dying`, what that dies of is waited for, and told instead.
        """
        try:
            yield
        except Exception as error:
            while not self._gone.done() and self._readable():
                pass
            if not self._outcome.done() and is_dying():
                await asyncio.wait([self._gone], timeout=KILL_LIMIT_S)
            failure = self._outcome.exception() if self._outcome.done() else None
            if failure is None or failure is error:
                raise
            raise failure from error  # the worker failed first; the block merely noticed
        finally:
            await self.release()

    async def release(self) -> None:
        """Kill the process and wait until it is gone; whoever cancels us meanwhile."""
        self.kill()
        try:
            await cleanup(self._wait_gone(), limit_s=2 * KILL_LIMIT_S, what=self._what)
        finally:
            if self._outcome.done():
                self._outcome.exception()  # seen, also when nobody asked
            for fd in self.take_fds():
                os.close(fd)

    def kill(self) -> None:
        """SIGKILL the process, by the fork server; nothing happens if it has ended."""
        self._limit.cancel()
        with contextlib.suppress(OSError):
            self._answers.shutdown(socket.SHUT_WR)

    async def _wait_gone(self) -> None:
        try:
            async with asyncio.timeout(KILL_LIMIT_S):
                await asyncio.shield(self._gone)
        except TimeoutError:
            log.warning("worker does not end after SIGKILL: it is blocked in the kernel", what=self._what)
            self._end()

    def _readable(self) -> bool:
        """Take one packet; False when there is none."""
        try:
            packet, fds, _, _ = socket.recv_fds(
                self._answers, MAX_PACKET_BYTES, MAX_FDS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            packet, fds = b"", []
        self._fds += fds
        if not packet:
            self._end()
            return False
        try:
            self._take(_decode(packet))
        except msgspec.DecodeError as error:
            self._fail(HostFailed(f"cannot {self._what}: the worker's answer is malformed: {error}"))
            self.kill()
        return True

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Progress):
            self._limit.cancel()
            self._limit = self._loop.call_later(self._stall_s, self._stalled)
            return
        self.answered = not isinstance(answer, Ended)
        if isinstance(answer, Failed):
            kind = _ERRORS.get(answer.error, HostFailed)
            self._fail(kind(answer.text))
        elif isinstance(answer, Ended):
            self._status = answer.status
        elif not self._outcome.done():
            self._limit.cancel()
            self._outcome.set_result(answer)

    def _stalled(self) -> None:
        self._fail(TimedOut(f"cannot {self._what}: no progress for {self._stall_s:g} s"))
        self.kill()

    def _end(self) -> None:
        """The socket is closed from the other side: the process is gone."""
        if self._gone.done():
            return
        self._limit.cancel()
        self._loop.remove_reader(self._answers.fileno())
        self._answers.close()
        how = "its fork server ended" if self._status is None else _how_ended(self._status)
        self._fail(Unavailable(f"cannot {self._what}: the worker was killed ({how}); try again"))
        self._gone.set_result(None)
        self._on_end()

    def _fail(self, error: CriolloError) -> None:
        self._limit.cancel()
        if not self._outcome.done():
            self._outcome.set_exception(error)


def _how_ended(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


_ERRORS: Final[dict[str, type[CriolloError]]] = {
    kind.__name__: kind
    for kind in (
        errors.Damaged,
        errors.Denied,
        errors.Exhausted,
        errors.HostFailed,
        errors.Unsupported,
        errors.TimedOut,
        errors.Unavailable,
    )
}
