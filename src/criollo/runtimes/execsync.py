"""ExecSync: a command in a running container, run to its end by the runtime itself, without a monitor.

    runtime --log FILE exec --process FILE <id>       FILEs live in the bundle while it runs
      └ the command, a child of that process until it ends

The runtime's own errors go to its log file, so they are not taken for the command's output: a command that could not
be started is an error with the runtime's words, a command that ran is an answer with its exit code.

Memory is bounded: each stream keeps 16 MiB, all streams together `_BUDGET_BYTES`; what comes beyond is read, dropped
and counted, so the command is never blocked by us (CVE-2022-1708).
"""

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import time
from collections.abc import Sequence
from typing import Final

from criollo.aio import process, threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Invalid, TimedOut, ToolFailed
from criollo.linux import files, proctree
from criollo.runtimes.base import EXEC_LIMIT_BYTES, ExecRequest, ExecResult
from criollo.telemetry.log import get_logger
from criollo.wire.runtime import readable

log = get_logger(__name__)

_BUDGET_BYTES: Final = 256 << 20
_CHUNK: Final = 1 << 16
_DRAIN_ROUNDS: Final = 256  # what a grandchild goes on writing after the command has ended is not waited for
_RUNTIME_GRACE_S: Final = 1.0
_LOG_BYTES: Final = 1 << 16
_SHOWN_COMMAND: Final = 200


async def exec_sync(runtime: Sequence[str], request: ExecRequest) -> ExecResult:
    """Run the command; `runtime` is the program with its global options.

    Raises:
        TimedOut: still running after `request.timeout_s`; it and its children were killed.
        ToolFailed: the runtime could not start it: no such command, not executable, container not running.
    """
    running = _Exec(runtime, request)
    try:
        async with asyncio.timeout(request.timeout_s or None):
            await threads.spawning(running.start)
            status = await running.wait()
    except TimeoutError:
        raise TimedOut(f"command {_shown(request.command)} timed out after {request.timeout_s:g}s") from None
    finally:
        await running.close()
    result = running.result(status)
    if result.dropped_bytes:
        log.warning("exec output beyond the limit dropped", container=request.container_id, bytes=result.dropped_bytes)
    return result


class _Exec:
    """The runtime's process, its two pipes and its two files."""

    def __init__(self, runtime: Sequence[str], request: ExecRequest) -> None:
        stem = request.bundle / f"exec-{secrets.token_hex(8)}"
        self._process_file, self._log_file = stem.with_suffix(".json"), stem.with_suffix(".log")
        self._request = request
        self._argv = [*runtime, f"--log={self._log_file}", "--log-format=json", "exec"]
        self._argv += ["--process", str(self._process_file), request.container_id]
        self._pidfd = -1
        self._pid = 0
        self._streams: list[_Stream] = []
        self._write_ends: list[int] = []
        self._failure = ""

    def start(self) -> None:
        """Write the process document and spawn the runtime (blocking)."""
        fd = os.open(self._process_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(self._request.process)
        for _ in range(2):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            self._streams.append(_Stream(read_end))
            self._write_ends.append(write_end)
        empty, end = os.pipe2(os.O_CLOEXEC)  # no /dev/null: crun gives the streams it has to the user, that of the host too
        os.close(end)
        try:
            child = process.spawn(self._argv, stdio=(empty, self._write_ends[0], self._write_ends[1]))
        finally:
            os.close(empty)
        self._pid = process.disown(child)
        self._pidfd = os.pidfd_open(self._pid)

    async def wait(self) -> int:
        """The runtime's exit status, negative for a signal; reads its output meanwhile."""
        self._close_write_ends()
        for stream in self._streams:
            stream.listen()
        await process.wait_pidfd(self._pidfd)
        status = process.reap(self._pidfd) or 0
        self._pid = 0
        if status != 0:
            self._failure = self._logged()
        return status

    def result(self, status: int) -> ExecResult:
        stdout, stderr = self._streams
        if self._failure:
            what = f"cannot run {_shown(self._request.command)} in container {self._request.container_id}"
            raise ToolFailed(what, self._argv, status, self._failure)
        code = status if status >= 0 else 128 - status
        return ExecResult(stdout.content(), stderr.content(), code, stdout.dropped + stderr.dropped)

    async def close(self) -> None:
        """End what still runs, let go of pipes and files. Safe after any failure."""
        if self._pid:
            await cleanup(threads.files(self._kill), limit_s=30, what="kill an exec")
        self._close_write_ends()
        for stream in self._streams:
            stream.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        for path in (self._process_file, self._log_file):
            with contextlib.suppress(OSError):
                path.unlink()

    def _kill(self) -> None:
        """The command first, so that the runtime reaps it and ends by itself: orphans of a container delay its end."""
        deadline = time.monotonic() + _RUNTIME_GRACE_S
        while not process.has_ended(self._pidfd) and time.monotonic() < deadline:
            for pid in proctree.descendants(self._pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        proctree.kill_tree(self._pid)
        process.reap(self._pidfd, wait=True)

    def _close_write_ends(self) -> None:
        while self._write_ends:
            os.close(self._write_ends.pop())

    def _logged(self) -> str:
        """The runtime's own error, if it had one."""
        try:
            return readable(files.read_limited(self._log_file, _LOG_BYTES))
        except (OSError, Invalid):
            return ""


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


def _shown(command: Sequence[str]) -> str:
    text = shlex.join(command)
    return text if len(text) <= _SHOWN_COMMAND else text[: _SHOWN_COMMAND - 1] + "…"
