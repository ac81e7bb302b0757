"""The daemon's end of the fork server: started when first needed, gone after a while without jobs, started again if it dies."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from criollo.aio import process, threads
from criollo.errors import Unavailable
from criollo.telemetry.log import get_logger
from criollo.workers.messages import Job
from criollo.workers.running import KILL_LIMIT_S, Running

log = get_logger(__name__)

_START: Final = "import sys; sys.path[:] = sys.argv[2:]; from criollo.workers.main import serve; serve(int(sys.argv[1]))"

_encode = msgspec.json.Encoder().encode


class ForkServer:
    """The process behind `workers.main`, as long as there are jobs and a while longer."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._lock = asyncio.Lock()
        self._control: socket.socket | None = None
        self._living: dict[int, asyncio.Future[None]] = {}  # pidfds of servers, also of those that are leaving
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, job: Job, fds: Sequence[int], what: str, stall_s: float) -> Running:
        """Start a job. Descriptors are copied; the caller keeps its own.

        Raises:
            Unavailable: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                await self._send(_encode(job), [theirs.fileno(), *fds])
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self._jobs += 1
        return Running(ours, what, stall_s, self._job_ended)

    async def _send(self, packet: bytes, fds: list[int]) -> None:
        async with self._lock:
            for _ in range(2):
                if self._control is None:
                    await self._launch()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [packet], fds, socket.MSG_DONTWAIT)
                except (BrokenPipeError, ConnectionResetError):
                    log.warning("the fork server of the workers ended; starting it again")
                    self._drop()
                except OSError as error:
                    raise Unavailable(f"cannot hand a job to the workers: {error.strerror}; try again") from error
                else:
                    return
        raise Unavailable("cannot start a worker: its fork server ends at once; see the log for its complaint")

    async def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [path for path in sys.path if os.path.isabs(path)]
        with theirs:
            argv = [sys.executable, "-I", "-S", "-B", "-c", _START, str(theirs.fileno()), *paths]
            program = process.Program(argv, pass_fds=(theirs.fileno(),))
            born: list[int] = []
            try:
                await threads.spawning(lambda: born.append(os.pidfd_open(process.disown(process.spawn(program)))))
            except BaseException:
                ours.close()  # so one that was started meanwhile leaves
                for pidfd in born:
                    self._follow(pidfd)
                raise
        self._control = ours
        self._follow(born[0])

    def _follow(self, pidfd: int) -> None:
        """Let a server go when it has ended."""
        loop = asyncio.get_running_loop()
        self._living[pidfd] = loop.create_future()
        loop.add_reader(pidfd, self._reap, pidfd)

    def _job_ended(self) -> None:
        self._jobs -= 1
        if self._timer is not None:
            self._timer.cancel()
        if not self._jobs:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        if not self._jobs and not self._lock.locked():
            self._drop()

    def _drop(self) -> None:
        """Close our end: the server kills its children and leaves."""
        if self._control is not None:
            self._control.close()
            self._control = None

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        for pidfd, ended in list(self._living.items()):
            try:  # no asyncio.timeout: before Python 3.11.3 it raises no TimeoutError in a task that is being cancelled
                await asyncio.wait([ended], timeout=KILL_LIMIT_S)
            finally:
                if not ended.done():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await asyncio.shield(ended)

    def _reap(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        process.reap(pidfd)
        os.close(pidfd)
        self._living.pop(pidfd).set_result(None)
