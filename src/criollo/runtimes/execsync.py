"""ExecSync: a command in a running container, run to its end, its output kept. See `exec` for the process itself.

The runtime's own errors go to its log, so they are not taken for the command's output: a command that could not be
started is an error with the runtime's words, a command that ran is an answer with its exit code.

Memory is bounded: each stream keeps 16 MiB, all streams together 256 MiB; what comes beyond is read, dropped
and counted, so the command is never blocked by us (CVE-2022-1708).
"""

import asyncio
import os
from typing import Final

from criollo.aio import threads
from criollo.aio.streams import BoundedPipe, ByteBudget
from criollo.errors import TimedOut, explain
from criollo.runtimes.base import EXEC_LIMIT_BYTES, ExecRequest, ExecResult
from criollo.runtimes.exec import Command, exit_code, shown
from criollo.runtimes.sealed import CommandLine
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_BUDGET: Final = ByteBudget(256 << 20)  # of all commands at a time
_RELAY_GRACE_S: Final = 0.25  # for a runtime that passes the output on itself, when the command has left somebody behind


async def exec_sync(runtime: CommandLine, request: ExecRequest, *, relays: bool) -> ExecResult:
    """Run the command; `runtime` is the program with its global options, and `relays` as for `exec.exec_stream`.

    Raises:
        TimedOut: still running after `request.timeout_s`; it and its children were killed.
        ToolFailed: the runtime could not start it: no such command, not executable, container not running.
    """
    command, output = Command(runtime, request, relays=relays), _Output()

    def start() -> None:
        output.open()
        command.start(output.stdio())

    try:
        async with asyncio.timeout(request.timeout_s or None):
            await threads.spawning(start)
            output.listen()
            status = await command.wait(grace_s=_RELAY_GRACE_S)
    except TimeoutError:
        raise TimedOut(f"command {shown(request.command)} timed out after {request.timeout_s:g}s") from None
    else:
        if words := command.failure(status):
            raise command.failed(status, words)
    finally:
        await command.end()
        output.close()
    stdout, stderr = output.streams
    dropped_bytes = stdout.dropped_bytes + stderr.dropped_bytes
    if dropped_bytes:
        log.warning("exec output beyond the limit dropped", container=request.container_id, bytes=dropped_bytes)
    return ExecResult(stdout.content(), stderr.content(), exit_code(status), dropped_bytes)


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

    def close(self) -> None:
        """Take what the pipes still hold and let go of them; the streams keep it."""
        for stream in self.streams:
            stream.close()
        _close_all(self._child)
        _close_all(self._ours)


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
