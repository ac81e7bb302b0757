"""ExecSync: a command in a running container, run to its end, its output kept. See `exec` for the process itself.

The runtime's own errors go to its log, so they are not taken for the command's output: a command that could not be
started is an error with the runtime's words, a command that ran is an answer with its exit code.

Memory is bounded: each stream keeps 16 MiB, all streams together `_BUDGET_BYTES`; what comes beyond is read, dropped
and counted, so the command is never blocked by us (CVE-2022-1708).
"""

import asyncio
import os
from typing import Final

from criollo.aio import threads
from criollo.errors import TimedOut, explain
from criollo.runtimes.base import EXEC_LIMIT_BYTES, ExecRequest, ExecResult
from criollo.runtimes.exec import Command, exit_code, shown
from criollo.runtimes.sealed import CommandLine
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_BUDGET_BYTES: Final = 256 << 20
_CHUNK: Final = 1 << 16
_RELAY_GRACE_S: Final = 0.25  # for a runtime that passes the output on itself, when the command has left somebody behind
_DRAIN_ROUNDS: Final = 256  # what a grandchild goes on writing after the command has ended is not waited for


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
    dropped_bytes = stdout.dropped + stderr.dropped
    if dropped_bytes:
        log.warning("exec output beyond the limit dropped", container=request.container_id, bytes=dropped_bytes)
    return ExecResult(stdout.content(), stderr.content(), exit_code(status), dropped_bytes)


class _Output:
    """The command's two output pipes, and an empty one for its input."""

    def __init__(self) -> None:
        self.streams: list[_Stream] = []
        self._child: list[int] = []

    def open(self) -> None:
        with explain("make the pipes of an exec"):
            empty, end = os.pipe2(os.O_CLOEXEC)
            self._child.append(empty)
            os.close(end)
            for _ in range(2):
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                self._child.append(write_end)
                self.streams.append(_Stream(read_end))

    def stdio(self) -> tuple[int, int, int]:
        stdin, stdout, stderr = self._child
        return stdin, stdout, stderr

    def listen(self) -> None:
        """Read from now on; the child has its ends."""
        self._let_go()
        for stream in self.streams:
            stream.listen()

    def close(self) -> None:
        self._let_go()
        for stream in self.streams:
            stream.close()

    def _let_go(self) -> None:
        while self._child:
            os.close(self._child.pop())


class _Stream:
    """One output pipe: kept up to the limit, then dropped and counted."""

    in_use = 0  # bytes that all streams of the process hold

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._fd, self._listening, self._kept = fd, False, 0
        self._chunks: list[bytes] = []
        os.set_blocking(fd, False)

    def listen(self) -> None:
        self._listening = True
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def content(self) -> bytes:
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def close(self) -> None:
        """Take what the pipe still holds and let go of it; the chunks stay for `content`."""
        rounds = _DRAIN_ROUNDS
        while self._listening and rounds and self._read():
            rounds -= 1
        self._stop()
        os.close(self._fd)
        _Stream.in_use -= self._kept

    def _read(self) -> bool:
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._stop()
            return False
        room = max(0, min(EXEC_LIMIT_BYTES - self._kept, _BUDGET_BYTES - _Stream.in_use))
        if len(chunk) > room:
            self.dropped += len(chunk) - room
            chunk = chunk[:room]
        if chunk:
            self._chunks.append(chunk)
            self._kept += len(chunk)
            _Stream.in_use += len(chunk)
        return True

    def _stop(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._fd)
