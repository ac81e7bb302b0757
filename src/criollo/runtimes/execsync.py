"""ExecSync: a command in a running container, run to its end, its output kept. See `exec` for the process itself.

The runtime's own errors go to its log, so they are not taken for the command's output: a command that could not be
started is an error with the runtime's words, a command that ran is an answer with its exit code.

Memory is bounded: each stream keeps 16 MiB, all streams together 256 MiB; what comes beyond is read, dropped
and counted, so the command is never blocked by us (CVE-2022-1708).
"""

import asyncio
import errno
import os
import signal
from typing import Final

from criollo.aio import threads
from criollo.aio.streams import BoundedPipe, ByteBudget
from criollo.errors import TimedOut, ToolFailed, explain
from criollo.runtimes.base import EXEC_LIMIT_BYTES, ExecRequest, ExecResult
from criollo.runtimes.exec import ON_THE_WAY_BYTES, Command, exit_code, shown
from criollo.runtimes.sealed import CommandLine
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_BUDGET: Final = ByteBudget(256 << 20)  # of all commands at a time
_NO_ROOM: Final = (os.strerror(errno.EAGAIN), "fail startup")  # of crun, which may also end by SIGPIPE; no command ran
_RELAY_GRACE_S: Final = 0.25  # for a runtime that passes the output on itself, when the command has left somebody behind
_LOOK_S: Final = 0.02


class Crowded(ToolFailed):
    """A runtime that was started ahead found no room for another process in the container's cgroup."""


class Run:
    """One command and its output. `runtime` is the program with its global options, and `relays` as for `exec.exec_stream`."""

    def __init__(self, runtime: CommandLine, request: ExecRequest, *, relays: bool) -> None:
        self.command, self.output = Command(runtime, request, relays=relays), _Output()
        self.is_started = self.is_ahead = False

    def start(self, *, is_ahead: bool = False) -> None:
        """Spawn the runtime (blocking). `is_ahead`: it waits for `command.proceed`."""
        self.output.open()
        self.command.start(self.output.stdio(), is_ahead=is_ahead)
        self.is_started, self.is_ahead = True, is_ahead

    async def end(self) -> None:
        """Kill what still runs; the output stays. Safe after any failure."""
        try:
            await self.command.end()
        finally:
            self.output.close()


async def exec_sync(run: Run, request: ExecRequest) -> ExecResult:
    """Run the command to its end; `run` is its own, and may have been started ahead.

    Raises:
        TimedOut: still running after `request.timeout_s`; it and its children were killed.
        ToolFailed: the runtime could not start it: no such command, not executable, container not running.
        Crowded: nor could one that was started ahead, for want of room: another that is not can.
    """
    try:
        async with asyncio.timeout(request.timeout_s or None):
            if not run.is_started:
                await threads.spawning(run.start)
            run.output.listen()
            status = await run.command.wait(grace_s=_RELAY_GRACE_S)
    except TimeoutError:
        raise TimedOut(f"command {shown(request.command)} timed out after {request.timeout_s:g}s") from None
    else:
        await _relayed(run)
        words = run.command.failure(status)
        if run.is_ahead and (status == -signal.SIGPIPE or any(sign in words for sign in _NO_ROOM)):
            raise Crowded(f"cannot run {shown(request.command)}", (), status, words)
        if words:
            raise run.command.failed(status, words)
    finally:
        await run.end()
    stdout, stderr = run.output.streams
    dropped_bytes = stdout.dropped_bytes + stderr.dropped_bytes
    if dropped_bytes:
        log.warning("exec output beyond the limit dropped", container=request.container_id, bytes=dropped_bytes)
    return ExecResult(stdout.content(), stderr.content(), exit_code(status), dropped_bytes)


async def _relayed(run: Run) -> None:
    """Until a runtime that lingers has passed on what the command wrote; what those that it left behind write is no end."""
    if not run.command.lingers:
        return
    most = run.output.seen_bytes + ON_THE_WAY_BYTES
    while run.output.seen_bytes < most and not run.command.has_relayed():  # noqa: ASYNC110  # nobody tells when it rests
        await asyncio.sleep(_LOOK_S)


class _Output:
    """The command's two output pipes, and an empty one for its input."""

    def __init__(self) -> None:
        self.streams: list[BoundedPipe] = []
        self._ours: list[int] = []
        self._child: list[int] = []

    def open(self) -> None:
        with explain("make the pipes of an exec"):
            empty, end = os.pipe2(os.O_CLOEXEC)
            self._child.append(empty)
            os.close(end)
            for _ in range(2):
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                self._child.append(write_end)
                self._ours.append(read_end)

    def stdio(self) -> tuple[int, int, int]:
        stdin, stdout, stderr = self._child
        return stdin, stdout, stderr

    def listen(self) -> None:
        """Read from now on; the child has its ends."""
        _close_all(self._child)
        self.streams = [BoundedPipe(fd, EXEC_LIMIT_BYTES, budget=_BUDGET) for fd in self._ours]

    @property
    def seen_bytes(self) -> int:
        return sum(len(stream.content()) + stream.dropped_bytes for stream in self.streams)

    def close(self) -> None:
        """Take what the pipes still hold and let go of them; the streams keep it."""
        for stream in self.streams:
            stream.close()
        _close_all(self._child)
        _close_all(self._ours)


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
