"""Children: started from a thread, waited for by pidfd, killed with their whole process group.

No fork and no preexec_fn: `subprocess` spawns by vfork. Every child gets an explicit argv, a minimal environment,
a stated list of descriptors and `/` as its directory (threats R8, R11).
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.aio.streams import BoundedPipe, readable
from criollo.errors import TimedOut, ToolFailed, explain
from criollo.telemetry import trail
from criollo.telemetry.scrub import scrubbed

MINIMAL_ENV: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
TAIL_BYTES: Final = 2000
_LOOK_BYTES: Final = 16 << 10  # of what a program wrote, for its last words
OUTPUT_BYTES: Final = 1 << 20  # kept of each stream, where nobody says otherwise
DEVNULL: Final = subprocess.DEVNULL
_CHUNK: Final = 1 << 16
_REAP_LIMIT_S: Final = 30


class Program(NamedTuple):
    """What to start, and with what. `executable` is a copy of `argv[0]` to execute instead, if that can be done."""

    argv: Sequence[str]
    env: Mapping[str, str] = MINIMAL_ENV
    cwd: str = "/"
    pass_fds: Sequence[int] = ()
    executable: str | None = None


class Finished(NamedTuple):
    """How a program ended; `status` is negative for a signal. Output beyond the limit was dropped."""

    status: int
    stdout: bytes
    stderr: bytes

    def stderr_tail(self) -> str:
        """What it said last, as it may stand in a message."""
        return last_words(self.stderr)


def spawn(program: Program, *, stdio: tuple[int, int, int] = (DEVNULL, DEVNULL, DEVNULL)) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own (blocking, about 1 ms: call it through `threads.spawning`)."""

    def start(path: str | None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            list(program.argv),
            executable=path,
            env=dict(program.env),
            cwd=program.cwd,
            pass_fds=program.pass_fds,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            start_new_session=True,
        )

    with explain(f"start {program.argv[0]}"):
        if program.executable is not None:
            with contextlib.suppress(OSError):
                return start(program.executable)
        return start(None)


def disown(child: "subprocess.Popen[bytes]") -> int:
    """Take a child that shall outlive us out of `subprocess`'s books; returns its pid. Whoever sees it end calls `reap`."""
    child.returncode = 0  # else Popen polls for it and warns when collected
    return child.pid


def reap(pidfd: int, *, wait: bool = False) -> int | None:
    """Let a child that ended go; its status, negative for a signal. None: it runs, is no child of ours or was reaped."""
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | (0 if wait else os.WNOHANG))
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return None


async def read_some(fd: int) -> bytes:
    """The next bytes of a non-blocking pipe; empty at its end."""
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            await readable(fd)


def last_words(output: bytes) -> str:
    """The end of what a program wrote, for messages: without what looks like a secret, and cut after that, not through one."""
    return scrubbed(output[-_LOOK_BYTES:].decode("utf-8", "replace"))[-TAIL_BYTES:]


def has_ended(pidfd: int, *, limit_s: float = 0) -> bool:
    """Whether the process has ended, or does so in time (blocking)."""
    poll = select.poll()  # select() cannot take descriptors above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))


async def wait_pidfd(fd: int) -> None:
    """Return when the process behind the pidfd has ended."""
    if has_ended(fd):
        return
    await readable(fd)


async def wait(child: "subprocess.Popen[bytes]") -> int:
    """Wait for a child of ours and reap it; returns its status, negative for a signal.

    Raises:
        Exhausted: no descriptor is left to wait with.
    """
    with explain(f"wait for process {child.pid}"):
        fd = os.pidfd_open(child.pid)
    try:
        await wait_pidfd(fd)
    finally:
        os.close(fd)
    return child.wait()


def kill_group(child: "subprocess.Popen[bytes]") -> None:
    """SIGKILL the child and all that it started in its session's group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


async def run(
    program: Program, *, what: str, timeout_s: float, stdin: bytes = b"", limit_bytes: int = OUTPUT_BYTES
) -> Finished:
    """Run a program to its end as `attempt` does; another status than 0 is an error.

    Raises:
        TimedOut: as of `attempt`.
        ToolFailed: it failed.
    """
    ended = await attempt(program, what=what, timeout_s=timeout_s, stdin=stdin, limit_bytes=limit_bytes)
    if ended.status != 0:
        raise ToolFailed(what, program.argv, ended.status, ended.stderr_tail() or last_words(ended.stdout))
    return ended


async def attempt(
    program: Program, *, what: str, timeout_s: float, stdin: bytes = b"", limit_bytes: int = OUTPUT_BYTES
) -> Finished:
    """Run a program to its end, whatever that is, and collect its output.

    `what` says what for, in errors: "create container 3f9c". Output beyond `limit_bytes` per stream is read and dropped.
    A grandchild that keeps a pipe open does not keep us: once the program itself has ended, its pipes are drained of
    what is there and closed.

    Raises:
        TimedOut: still running after `timeout_s` seconds; its whole process group was killed.
    """
    child = await _start(program)
    talk = _Talk(child, stdin, limit_bytes)
    step = trail.program(program.argv, child.pid, what)
    try:
        async with asyncio.timeout(timeout_s):
            status = await wait(child)
    except TimeoutError:
        words = talk.last_words().strip()
        said = f"; it said: {words!r}" if words else ""
        raise TimedOut(f"{what}: {program.argv[0]} still running after {timeout_s:g} s, killed{said}") from None
    finally:
        await talk.end()
        step.end(child.returncode, talk.last_words())
    return Finished(status, talk.stdout.content(), talk.stderr.content())


async def _start(program: Program) -> "subprocess.Popen[bytes]":
    """Between three pipes. A caller that is cancelled meanwhile leaves nothing behind."""
    born: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        born.append(spawn(program, stdio=(subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)))

    try:
        await threads.spawning(start)
    except BaseException:
        for child in born:
            await _discard(child)
        raise
    return born[0]


async def _discard(child: "subprocess.Popen[bytes]") -> None:
    kill_group(child)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    await _reap(child)


async def _reap(child: "subprocess.Popen[bytes]") -> None:
    """After SIGKILL, also for a cancelled caller; a child stuck in the kernel is left to `subprocess`, which polls for it."""
    await cleanup(wait(child), limit_s=_REAP_LIMIT_S, what=f"wait for {child.args!r}")


class _Talk:
    """What passes between a child and us, through its three pipes."""

    def __init__(self, child: "subprocess.Popen[bytes]", stdin: bytes, limit_bytes: int) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._child, self._outputs = child, (child.stdout, child.stderr)
        self.stdout = BoundedPipe(child.stdout.fileno(), limit_bytes)
        self.stderr = BoundedPipe(child.stderr.fileno(), limit_bytes)
        self._feed = _Feeder(child.stdin.fileno(), stdin, child.stdin.close)

    def last_words(self) -> str:
        return last_words(self.stderr.content())

    async def end(self) -> None:
        """Kill a child that still runs; then take what its pipes hold and close them."""
        self._feed.close()
        try:
            if self._child.returncode is None:
                kill_group(self._child)
                await _reap(self._child)
        finally:
            self.stdout.close()
            self.stderr.close()
            for pipe in self._outputs:
                pipe.close()


class _Feeder:
    """Writes bytes into a child's stdin without blocking the loop, then closes it."""

    def __init__(self, fd: int, content: bytes, close: Callable[[], None]) -> None:
        self._fd, self._left, self._close = fd, memoryview(content), close
        self._waiting = False
        os.set_blocking(fd, False)
        self._write()

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left[:_CHUNK]) :]
        except BlockingIOError:
            if not self._waiting:
                self._waiting = True
                asyncio.get_running_loop().add_writer(self._fd, self._write)
            return
        except BrokenPipeError:
            pass
        self.close()

    def close(self) -> None:
        if self._fd < 0:
            return
        if self._waiting:
            asyncio.get_running_loop().remove_writer(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):
            self._close()
