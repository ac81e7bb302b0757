"""Exec: a command in a running container, run by the runtime itself as our child, without a monitor.

    runtime --log /proc/<us>/fd/N exec --process /proc/<us>/fd/M <id>      not handed on: see `journal`, `Document`
      └ the command, a child of that process until it ends
    its stdin, stdout, stderr, or its terminal: see `ends`

The runtime's own errors go to its log, so they are not taken for the command's. Streams may stay open in processes that
the command left behind: once it has ended, what is in the pipes is passed on, however slow the client, and nothing is waited
for. (CRI-O does so; containerd waits for ever unless drain_exec_sync_io_timeout is set.) A runtime that passes the streams on
itself, as runc does, waits for such processes: it is ended, when it has brought what was on its way.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shlex
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from criollo.aio import process, threads
from criollo.aio.cleanup import cleanup
from criollo.aio.streams import FdWriter, Size, Source, Streams, copy
from criollo.aio.together import first, together
from criollo.errors import ToolFailed, explain, printable
from criollo.linux import proctree
from criollo.runtimes.base import ExecRequest
from criollo.runtimes.ends import Ends, HandedOver, Pipes, Relayed
from criollo.runtimes.journal import Journal
from criollo.runtimes.sealed import CommandLine

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells say it

_RUNTIME_GRACE_S: Final = 1.0
_STANDSTILL_S: Final = 0.2  # for the tree of a command to stand still before it is killed
_TERMINAL_GRACE_S: Final = 1.0
_RELAY_GRACE_S: Final = 0.05
ON_THE_WAY_BYTES: Final = (64 + 32) << 10  # in a runtime between the command and us: its pipe, and Go's io.Copy
_ON_THE_WAY_S: Final = 0.25
_RELAY_LIMIT_S: Final = 30.0  # for a runtime that is always busy
_KILL_LIMIT_S: Final = 30
_SHOWN_COMMAND: Final = 200
_PIPE_BYTES: Final = 1 << 16  # what a pipe takes as it is made
_ABOUT_PROGRAM: Final = re.compile(r"executable|\bexec(: | /)")  # not: "exec failed: … chdir …"
_NO_SUCH: Final = re.compile(r"not found in \$PATH|no such file or directory", re.IGNORECASE)
_NO_PROGRAM: Final = re.compile(r"permission denied|operation not permitted|exec format error|is a directory", re.IGNORECASE)


async def exec_stream(runtime: CommandLine, request: ExecRequest, streams: Streams, *, relays: bool) -> int:
    """Run a command between the client's streams; its exit code, 128 and more for a signal.

    A command that is not there or is no program: 127 or 126, after the runtime's words on stderr (of a terminal: on stdout).
    Output that the client did not ask for is dropped. `streams` are left open. When cancelled, the command is killed with
    all it has started. `relays`: the runtime passes the streams on itself, and gives no terminal away without leaving.

    Raises:
        ToolFailed: the runtime could not start it otherwise, or nobody would see its words.
    """
    ends: Ends = Pipes(streams) if not request.tty else Relayed(streams) if relays else HandedOver(streams, request.bundle)
    command = Command(runtime, request, relays=relays)
    try:
        stdio = ends.open()
        await threads.spawning(command.start, stdio, ends.options)
        ends.let_go()
        await first(ends.complete(), command.ended())
        ends.take_what_is_there()
        return await _serve(command, ends, streams)
    finally:
        try:
            await command.end()
        finally:
            await ends.close()


class Command:
    """The runtime's process of one exec, and what passes between it and us."""

    def __init__(self, runtime: CommandLine, request: ExecRequest, *, relays: bool) -> None:
        self._runtime, self._request = runtime, request
        self._is_followed = relays and not request.tty
        self._argv: list[str] = []
        self._journal: Journal | None = None
        self._document: Document | None = None
        self._pidfd = -1
        self._pid = 0
        self._told: int | None = None
        self._told_at = 0.0

    def start(self, stdio: tuple[int, int, int], options: Sequence[str] = (), *, is_ahead: bool = False) -> None:
        """Spawn the runtime (blocking), with further options of its verb. `stdio` stays the caller's.

        `is_ahead`: the request has no process yet, and the runtime waits until it gets one: see `proceed`.
        """
        with explain(f"prepare an exec in container {self._request.container_id}"):
            self._journal = Journal(is_followed=self._is_followed)
            self._document = Document(is_late=is_ahead)
            if not is_ahead:
                self._document.write(self._request.process)
        self._argv = [*self._runtime, *self._journal.options, "exec", "--process", self._document.path, *options]
        self._argv.append(self._request.container_id)
        program = process.Program(self._argv, executable=self._runtime.executable)
        self._pid = process.disown(process.spawn(program, stdio=stdio))
        self._pidfd = os.pidfd_open(self._pid)
        for file in self._request.joins:
            with contextlib.suppress(OSError):  # the container or the runtime is ending: the exec will say so
                file.write_text(str(self._pid), "ascii")

    def proceed(self, request: ExecRequest) -> None:
        """Give a runtime that was started ahead what it waits for.

        Raises:
            HostFailed: there is no room for it; the runtime still waits.
        """
        assert self._document is not None
        with explain(f"prepare an exec in container {request.container_id}"):
            self._document.write(request.process)
        self._request = request

    @property
    def pid(self) -> int:
        """The runtime's; 0 when it runs no more."""
        return self._pid

    @property
    def has_ended(self) -> bool:
        """Whether the runtime has."""
        return process.has_ended(self._pidfd)

    async def ended(self) -> None:
        """Return when the runtime has ended."""
        await process.wait_pidfd(self._pidfd)

    async def wait(self, *, grace_s: float = _RELAY_GRACE_S) -> int:
        """The exit status, negative for a signal of the runtime itself.

        A runtime that tells of the command's end and goes on has `grace_s`; after that it still `lingers`.
        """
        if not self._is_followed:
            await self.ended()
        else:
            await first(self.ended(), self._after_told(grace_s))
        if not process.has_ended(self._pidfd):
            assert self._told is not None
            return self._told
        status = process.reap(self._pidfd) or 0
        self._pid = 0
        return status

    @property
    def lingers(self) -> bool:
        """After `wait`: the command has ended and the runtime has not."""
        return self._pid != 0

    def has_relayed(self) -> bool:
        """Whether a runtime that lingers has nothing at hand: it sleeps, or is busy with what others do."""
        return proctree.is_at_rest(self._pid) or time.monotonic() > self._told_at + _RELAY_LIMIT_S

    def failure(self, status: int) -> str:
        """The runtime's own words when it failed; empty when the status is the command's."""
        if status == 0 or self._told is not None:
            return ""
        return self._journal.words() if self._journal is not None else ""

    def failed(self, status: int, words: str) -> ToolFailed:
        what = f"cannot run {shown(self._request.command)} in container {self._request.container_id}"
        return ToolFailed(what, self._argv, status, words)

    def signal(self, number: int) -> None:
        """Signal the runtime, if it still runs."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self) -> None:
        """End what still runs, let go of everything. Safe after any failure."""
        if self._document is not None:
            self._document.close()  # a runtime that still waits for it ends by itself
            self._document = None
        try:
            if self._pid:
                await cleanup(threads.files(self._kill), limit_s=_KILL_LIMIT_S, what="kill an exec")
        finally:  # it tells of a cancellation that came meanwhile
            self._let_go()

    def _let_go(self) -> None:
        self._pid = 0
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    async def _after_told(self, grace_s: float) -> None:
        assert self._journal is not None
        self._told = await self._journal.exit_told(lambda: not proctree.children(self._pid))
        self._told_at = time.monotonic()
        await asyncio.sleep(grace_s)

    def _kill(self) -> None:
        """The command first, so that the runtime reaps it and ends by itself: orphans of a container delay its end."""
        begun = time.monotonic()
        deadline = begun + (_RUNTIME_GRACE_S if self._told is None else 0)
        while not process.has_ended(self._pidfd) and (now := time.monotonic()) < deadline:
            proctree.kill_below(self._pid, anyway=now > begun + _STANDSTILL_S)
            time.sleep(0.002)
        proctree.kill_tree(self._pid)
        if process.has_ended(self._pidfd, limit_s=_KILL_LIMIT_S):  # else stuck in the kernel, or frozen with its container
            process.reap(self._pidfd)


class Document:
    """The process's description, which the runtime reads by a path beneath our /proc/<pid>/fd, so that no file is made.

    A file in memory; or a pipe that it waits at, where the content comes late.
    """

    def __init__(self, *, is_late: bool) -> None:
        self._end = -1
        if is_late:
            self._fd, self._end = os.pipe2(os.O_CLOEXEC)
        else:
            self._fd = os.memfd_create("exec-process", os.MFD_CLOEXEC)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def write(self, content: bytes) -> None:
        """All of it, at once. Never blocks: the pipe gets as large as it must."""
        if self._end < 0:
            os.write(self._fd, content)
            return
        if len(content) > _PIPE_BYTES:
            fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, len(content))
        os.write(self._end, content)
        os.close(self._end)
        self._end = -1

    def close(self) -> None:
        for fd in {self._fd, self._end} - {-1}:
            os.close(fd)
        self._fd = self._end = -1


async def _serve(command: Command, ends: Ends, streams: Streams) -> int:
    """Pass bytes on until the runtime has ended and its output has arrived."""
    status = 0
    drained = asyncio.Event()

    async def until_ended() -> None:
        nonlocal status
        status = await command.wait()
        if ends.is_terminal:  # it ends by itself, after all that is in it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TERMINAL_GRACE_S):
                    await drained.wait()
        for reader in ends.outputs:
            if command.lingers:
                reader.finish(more_bytes=ON_THE_WAY_BYTES, quiet_s=_ON_THE_WAY_S, is_over=command.has_relayed)
            else:
                reader.finish()

    async def outputs() -> None:
        writers = (streams.stdout, streams.stderr)
        await together(copy(reader, writer or _Nobody()) for reader, writer in zip(ends.outputs, writers, strict=False))
        drained.set()

    await first(together((until_ended(), outputs())), _inputs(command, ends, streams))
    return await _code(command, status, streams, is_terminal=ends.is_terminal)


async def _code(command: Command, status: int, streams: Streams, *, is_terminal: bool) -> int:
    """The command's exit code; what the runtime said of one that could not be started is on the client's streams then."""
    if not (words := command.failure(status)):
        return exit_code(status)
    code, listener = code_of(words), streams.stdout if is_terminal else streams.stderr
    if not code or listener is None:
        raise command.failed(status, words)
    if is_terminal:  # else the runtime itself wrote them
        await listener.write(printable(words).encode() + b"\r\n")
    return code


async def _inputs(command: Command, ends: Ends, streams: Streams) -> None:
    """Keys and sizes, as long as the command runs: never returns."""
    work = []
    if streams.stdin is not None and ends.stdin is not None:
        work.append(_feed(streams.stdin, ends.stdin, keep_open=ends.is_terminal))
    if streams.sizes is not None and ends.is_terminal:
        work.append(_resize(command, ends, streams.sizes))
    await together(work)
    await asyncio.get_running_loop().create_future()


class _Nobody:
    """Takes what no client asked for, so that the command is not held."""

    async def write(self, data: bytes) -> None:
        pass

    async def close(self) -> None:
        pass


async def _feed(source: Source, stdin: FdWriter, *, keep_open: bool) -> None:
    """What the client types; its end closes a pipe, and is nothing to a terminal.

    What a command cannot take any more is dropped: a client that waits for room could not be told anything else meanwhile.
    """
    while data := await source.read():
        try:
            await stdin.write(data)
        except OSError:
            source.drop()
            break
    if not keep_open:
        await stdin.close()


async def _resize(command: Command, ends: Ends, sizes: AsyncIterator[Size]) -> None:
    async for size in sizes:
        if ends.resize(size):
            command.signal(signal.SIGWINCH)


def code_of(words: str) -> int:
    """The exit code that a shell would give a command for these words of a runtime; 0 when they are about something else."""
    if not _ABOUT_PROGRAM.search(words):
        return 0
    return NOT_FOUND if _NO_SUCH.search(words) else NOT_EXECUTABLE if _NO_PROGRAM.search(words) else 0


def exit_code(status: int) -> int:
    """What a client is told of a runtime's exit status."""
    return status if status >= 0 else 128 - status


def shown(command: Sequence[str]) -> str:
    """A command as it stands in a message."""
    text = shlex.join(command)
    return text if len(text) <= _SHOWN_COMMAND else text[: _SHOWN_COMMAND - 1] + "…"
