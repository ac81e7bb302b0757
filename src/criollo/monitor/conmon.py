"""Start conmon for a container, and hear from it whether the runtime made one.

    daemon ──spawn──▶ conmon (its own session, cwd = bundle) ──▶ runtime create ──▶ first process of the container
       │ _OCI_STARTPIPE ─▶ "go", once the bundle is complete and conmon sits in its cgroup
       └ _OCI_SYNCPIPE ◀── {"pid": N}  or  {"pid": -1, "message": "…"}

Conmon is subreaper and parent of the container's first process, so its end is the one thing to watch. It is started
with `--sync`: it stays our child, known by pid at once, and is reaped by `exits`; when the daemon goes, it lives on.
Its cwd is the bundle because that is where it leaves the file `oom`.

Invariants: after a failure nothing of it runs any more; no descriptor but its pipes reaches it; it sits in its cgroup
before the runtime starts. Memory of a pod that is used up never kills its monitor (CVE-2019-14891): it does not count
there, unless its scope is put into the pod's slice by name; and conmon's own OOM score is the least there is.
Source: conmon 2.1, conmon(8), src/cli.c, src/parent_pipe_fd.c.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from criollo.aio import process, threads
from criollo.aio.cleanup import cleanup
from criollo.aio.systemd import Systemd
from criollo.aio.together import together
from criollo.errors import Invalid, TimedOut, ToolFailed, explain
from criollo.linux import procfs, proctree
from criollo.linux.cgroup import Hierarchies
from criollo.telemetry import texts, trail
from criollo.telemetry.log import get_logger
from criollo.telemetry.scrub import scrubbed
from criollo.wire import conmon as protocol
from criollo.wire.runtime import readable

log = get_logger(__name__)

PIDFILE: Final = "pidfile"
CGROUP_PREFIX: Final = "crio-conmon"
_SUN_PATH: Final = 108  # unix(7): bytes of a socket's address
_STDERR_BYTES: Final = 1 << 14


class Launch(NamedTuple):
    """One container to be created. `runtime` is the program with its global options; `cgroup` is where conmon shall
    sit (a path below the hierarchies; empty: where the daemon sits), or in a scope of its own in the slice `slice_name`;
    `log_path` is absolute, empty for no log."""

    container_id: str
    name: str
    bundle: Path
    runtime: Sequence[str]
    log_path: str = ""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    systemd_cgroup: bool = False
    cgroup: str = ""
    slice_name: str = ""
    env: Mapping[str, str] = {}
    timeout_s: float = 240.0
    no_pivot: bool = False


def scope_of(container_id: str) -> str:
    """The name of a monitor's own scope."""
    return f"{CGROUP_PREFIX}-{container_id}.scope"


class Created(NamedTuple):
    """Who runs now. Start times are clock ticks since boot: a pid alone may be somebody else's tomorrow."""

    pid: int
    pid_started: int
    monitor_pid: int
    monitor_started: int


class Conmon:
    """The monitor program and the places it shares with us. `log_size_max` in bytes, -1 for no limit."""

    def __init__(
        self, path: Path, *, exits_dir: Path, attach_dir: Path, log_size_max: int = -1, no_sync_log: bool = False
    ) -> None:
        self.path, self.exits_dir, self.attach_dir = path, exits_dir, attach_dir
        self._log_size_max, self._no_sync_log = log_size_max, no_sync_log
        self.units = Systemd()  # who makes scopes of monitors

    def argv(self, launch: Launch) -> list[str]:
        """Conmon's command line.

        Raises:
            Invalid: the log path cannot be said on it: conmon takes a colon for the end of the path.
        """
        if ":" in launch.log_path:
            raise Invalid("log_path", launch.log_path, "a path without a colon: conmon reads the path only up to one")
        argv = [str(self.path), "--sync", "--cid", launch.container_id, "--cuuid", launch.container_id]
        argv += ["--name", launch.name, "--bundle", str(launch.bundle), "--container-pidfile", str(launch.bundle / PIDFILE)]
        argv += ["--exit-dir", str(self.exits_dir)]
        if len(os.fsencode(self._link(launch.container_id))) == _SUN_PATH - 1:
            argv.append("--full-attach")  # conmon shortens a link of exactly this length, to a name that we do not know
        else:
            argv += ["--socket-dir-path", str(self.attach_dir)]
        argv += ["--log-path", f"k8s-file:{launch.log_path}" if launch.log_path else "off"]
        if self._log_size_max >= 0 and launch.log_path:
            argv += ["--log-size-max", str(self._log_size_max)]
        if self._no_sync_log:
            argv.append("--no-sync-log")
        if launch.no_pivot:
            argv.append("--no-pivot")
        if launch.tty:
            argv.append("--terminal")
        if launch.stdin:
            argv.append("--stdin")
            if not launch.stdin_once:
                argv.append("--leave-stdin-open")
        if launch.systemd_cgroup:
            argv.append("--systemd-cgroup")
        argv += ["--runtime", launch.runtime[0], *(f"--runtime-arg={word}" for word in launch.runtime[1:])]
        return argv

    async def create(
        self, launch: Launch, hierarchies: Hierarchies, ground: Coroutine[Any, Any, None] | None = None
    ) -> Created:
        """Start conmon and wait for its word on the container.

        `ground` completes the bundle. It runs while conmon starts; the runtime is called only when it is done.

        Raises:
            ToolFailed: the runtime, or conmon itself, failed; the message has what it said.
            TimedOut: no word `launch.timeout_s` seconds after that. Everything that had been started is killed.
            whatever `ground` raises.
        """
        start = _Start()
        made: list[Created] = []

        async def launched() -> None:
            work = [self._start(launch, hierarchies, start)]
            await together(work if ground is None else [ground, *work])
            start.step = trail.program(start.argv, start.pid, "monitor and runtime")  # before, it waits for us
            start.go()
            made.append(await self._answered(launch, start))

        try:
            await together((launched(), threads.files(hierarchies.expect_moves)))  # the runtime comes to its move much later
            return made[0]
        except BaseException:
            await cleanup(start.kill(), limit_s=30, what=f"kill the monitor of container {launch.container_id}")
            raise
        finally:
            if start.step is not None:
                start.step.end(None, start.stderr())
            start.close()

    async def _answered(self, launch: Launch, start: "_Start") -> Created:
        try:
            async with asyncio.timeout(launch.timeout_s):
                return await self._created(launch, start)
        except TimeoutError:
            said = start.stderr()
            told = texts.CREATION_TIMEOUT.format(f"{launch.timeout_s:g}")
            log.error(told, container=launch.container_id)
            raise TimedOut(
                f"cannot create container {launch.container_id}: {launch.runtime[0]} and conmon gave no answer within"
                f" {launch.timeout_s:g} s and were killed" + (f"; conmon said: {said!r}" if said else "")
            ) from None

    def forget(self, container_id: str) -> None:
        """Remove what conmon leaves outside the bundle: exit file and attach link. Absence is success."""
        for path in (self.exits_dir / container_id, self._link(container_id)):
            with explain(f"remove {path}"), contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _link(self, container_id: str) -> Path:
        return self.attach_dir / container_id

    async def _created(self, launch: Launch, start: "_Start") -> Created:
        answer = await _answer(start, launch)
        monitor_started = procfs.start_time(start.pid)  # not before: of a process in exec this takes a millisecond
        if answer == -1 or monitor_started is None:
            raise _failed(launch, start)
        pid_started = procfs.start_time(answer)
        if pid_started is None or proctree.parent(answer) != start.pid:
            raise _failed(launch, start, f"process {answer}, which conmon named, is not its child")
        return Created(answer, pid_started, start.pid, monitor_started)

    async def _start(self, launch: Launch, hierarchies: Hierarchies, start: "_Start") -> None:
        start.argv = self.argv(launch)
        log.debug("starting conmon", container=launch.container_id, argv=start.argv)
        await threads.spawning(start.spawn, start.argv, launch)
        if launch.slice_name:
            await self.units.start_monitor_scope(scope_of(launch.container_id), launch.slice_name, start.pid)
        elif launch.cgroup:
            with explain(f"move the monitor of container {launch.container_id} into cgroup {launch.cgroup}"):
                await threads.files(_enter_cgroup, hierarchies, launch.cgroup, start.pid)


class _Start:
    """Pipes and process of one start; owned by `Conmon.create` until the container exists."""

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.pid = 0
        self.message = ""
        self.step: trail.Step | None = None
        self.sync_read, self._sync_write = os.pipe2(os.O_CLOEXEC)
        self._go_read, self._go_write = os.pipe2(os.O_CLOEXEC)
        self._said = _bounded_memory("conmon-stderr", _STDERR_BYTES)
        os.set_blocking(self.sync_read, False)

    def spawn(self, argv: Sequence[str], launch: Launch) -> None:
        """Start conmon (blocking), in a bundle and with a log directory that are made if they are not there.

        The pid is kept here, so that a cancelled awaiter still finds it to kill.
        """
        with explain(f"make bundle and log directory of container {launch.container_id}"):
            os.makedirs(launch.bundle, 0o700, exist_ok=True)
            if launch.log_path:
                os.makedirs(os.path.dirname(launch.log_path), 0o755, exist_ok=True)
        env = {
            **process.MINIMAL_ENV,
            **launch.env,
            "_OCI_SYNCPIPE": str(self._sync_write),
            "_OCI_STARTPIPE": str(self._go_read),
        }
        program = process.Program(argv, env, cwd=str(launch.bundle), pass_fds=[self._sync_write, self._go_read])
        self.pid = process.disown(process.spawn(program, stdio=(process.DEVNULL, self._said, self._said)))
        os.close(self._sync_write)
        self._sync_write = -1

    def go(self) -> None:
        """Let conmon, which waits on its start pipe, begin."""
        os.write(self._go_write, b"\0")

    def stderr(self) -> str:
        """What conmon wrote before it let go of its stderr."""
        return process.last_words(os.pread(self._said, _STDERR_BYTES, 0).rstrip(b"\0")).strip()

    async def kill(self) -> None:
        """End conmon and all below it, and reap it."""
        if self.pid:
            await threads.files(_end, self.pid)

    def close(self) -> None:
        for fd in (self.sync_read, self._sync_write, self._go_read, self._go_write, self._said):
            if fd >= 0:
                os.close(fd)


async def _answer(start: _Start, launch: Launch) -> int:
    """Conmon's word: a pid, or -1 with `start.message` set."""
    pipe = protocol.SyncPipe()
    try:
        while (data := await process.read_some(start.sync_read)) != b"":
            answer = pipe.receive(data)
            if answer is not None:
                start.message = answer.message
                return protocol.created_pid(answer)
    except protocol.Garbled as error:
        raise _failed(launch, start, f"conmon answered nonsense: {error}") from None
    raise _failed(launch, start, start.stderr() or "conmon ended without a word, and so did the runtime")


def _failed(launch: Launch, start: _Start, why: str = "") -> ToolFailed:
    said = why or scrubbed(readable(start.message)) or start.stderr() or "the runtime said nothing"
    return ToolFailed(f"cannot create container {launch.container_id}", launch.runtime, 1, said)


def _end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        proctree.kill_tree(pid)
        process.reap(pidfd, wait=True)
    finally:
        os.close(pidfd)


def _enter_cgroup(hierarchies: Hierarchies, path: str, pid: int) -> None:
    hierarchies.create(path)
    hierarchies.attach(path, pid, leave_out=frozenset({"memory"}))


def _bounded_memory(name: str, size: int) -> int:
    """A file in memory that cannot grow beyond `size`: a writer that goes on gets an error."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd
