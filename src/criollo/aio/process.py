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
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import TimedOut, ToolFailed, explain
from criollo.telemetry import trail

MINIMAL_ENV: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
TAIL_BYTES: Final = 2000
DEVNULL: Final = subprocess.DEVNULL
_CHUNK: Final = 1 << 16
_REAP_LIMIT_S: Final = 30


class Finished(NamedTuple):
    """How a program ended; `status` is negative for a signal. Output beyond the limit was dropped."""

    status: int
    stdout: bytes
    stderr: bytes

    def stderr_tail(self) -> str:
        return self.stderr[-TAIL_BYTES:].decode("utf-8", "replace")


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    pass_fds: Sequence[int] = (),
    stdio: tuple[int, int, int] = (subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL),
    executable: str | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own (blocking, about 1 ms: call it through `threads.spawning`).

    `executable` is a copy of `argv[0]` to execute instead, if that can be done.
    """

    def start(path: str | None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            list(argv),
            executable=path,
            env=dict(MINIMAL_ENV if env is None else env),
            cwd=cwd,
            pass_fds=pass_fds,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            start_new_session=True,
        )

    with explain(f"start {argv[0]}"):
        if executable is not None:
            with contextlib.suppress(OSError):
                return start(executable)
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
            await _readable(fd)


def has_ended(pidfd: int) -> bool:
    poll = select.poll()  # select() cannot take descriptors above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def wait_pidfd(fd: int) -> None:
    """Return when the process behind the pidfd has ended."""
    if has_ended(fd):
        return
    await _readable(fd)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, tell)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def wait(child: "subprocess.Popen[bytes]") -> int:
    """Wait for a child of ours and reap it; returns its status, negative for a signal."""
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
    argv: Sequence[str],
    *,
    what: str,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    pass_fds: Sequence[int] = (),
    limit_bytes: int = 1 << 20,
    check: bool = True,
    executable: str | None = None,
) -> Finished:
    """Run a program to its end and collect its output.

    `what` says what for, in errors: "create container 3f9c". Output beyond `limit_bytes` per stream is read and dropped.
    A grandchild that keeps a pipe open does not keep us: once the program itself has ended, its pipes are drained of
    what is there and closed.

    Raises:
        TimedOut: still running after `timeout_s` seconds; its whole process group was killed.
        ToolFailed: it ended with another status than 0, unless `check` is false.
    """
    born: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        pipes = (subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)
        born.append(spawn(argv, env=env, cwd=cwd, pass_fds=pass_fds, stdio=pipes, executable=executable))

    try:
        await threads.spawning(start)
    except BaseException:
        for child in born:  # cancelled while it was being started
            await _discard(child)
        raise
    child = born[0]
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = _Collector(child.stdout.fileno(), limit_bytes), _Collector(child.stderr.fileno(), limit_bytes)
    feed = _Feeder(child.stdin.fileno(), stdin, child.stdin.close)
    step = trail.program(argv, child.pid, what)
    try:
        async with asyncio.timeout(timeout_s):
            status = await wait(child)
    except TimeoutError:
        said = bytes(err.data)[-TAIL_BYTES:].decode("utf-8", "replace").strip()
        raise TimedOut(
            f"{what}: {argv[0]} still running after {timeout_s:g} s, killed" + (f"; it said: {said!r}" if said else "")
        ) from None
    finally:
        feed.close()
        if child.returncode is None:
            kill_group(child)
            await _reap(child)
        out.close()
        err.close()
        step.end(child.returncode, bytes(err.data[-TAIL_BYTES:]).decode("utf-8", "replace"))
        child.stdout.close()
        child.stderr.close()
    finished = Finished(status, bytes(out.data), bytes(err.data))
    if check and status != 0:
        raise ToolFailed(what, argv, status, finished.stderr_tail() or finished.stdout[-TAIL_BYTES:].decode("utf-8", "replace"))
    return finished


async def _reap(child: "subprocess.Popen[bytes]") -> None:
    """After SIGKILL, also for a cancelled caller; a child stuck in the kernel is left to `subprocess`, which polls for it."""
    await cleanup(wait(child), limit_s=_REAP_LIMIT_S, what=f"wait for {child.args!r}")


async def _discard(child: "subprocess.Popen[bytes]") -> None:
    kill_group(child)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    await _reap(child)


class _Collector:
    """Reads one pipe on the loop, up to a limit; beyond it reads and drops."""

    def __init__(self, fd: int, limit: int) -> None:
        self.data = bytearray()
        self._fd, self._limit, self._open = fd, limit, True
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._stop()
            return False
        self.data += chunk[: max(0, self._limit - len(self.data))]
        return True

    def _stop(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def close(self) -> None:
        """Take what is already in the pipe, then let go of it."""
        rounds = 0
        while self._open and rounds < 256 and self._read():  # a grandchild may write for ever
            rounds += 1
        self._stop()


class _Feeder:
    """Writes bytes into a child's stdin without blocking the loop, then closes it."""

    def __init__(self, fd: int, data: bytes, close: object) -> None:
        self._fd, self._left, self._close = fd, memoryview(data), close
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
        if callable(self._close):
            with contextlib.suppress(OSError):
                self._close()
