"""Runtimes with a command line: crun, runc and their like, through a monitor.

    create          conmon ▶ runtime create         start, delete, state, update     runtime <verb>
    start           for crun without poststart hooks: see `fifo`
    kill            pidfd_send_signal where the container's first process is a process of this kernel and ours to name;
                    else `runtime kill` (gVisor's pid is the sandbox, not the workload)
    exec            runtime exec, see `exec`        exec_sync       the same with its output kept, see `execsync`, `ahead`
    wait_exit       see `monitor.exits`

Every call of the program has a limit; one that passes it is killed with its children. A runtime's words reach the
caller as the message only, without timestamps and levels.
Source: OCI runtime-spec 1.0; crun(1), runc(8).
"""

import contextlib
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from criollo.aio import process, threads
from criollo.aio.cleanup import cleanup
from criollo.aio.streams import Streams
from criollo.aio.together import together
from criollo.errors import CriolloError, HostFailed, ToolFailed, explain
from criollo.linux import procfs
from criollo.linux.cgroup import Driver, Hierarchies, Place, container_cgroup, driver_of
from criollo.linux.devices import restore_null
from criollo.monitor.conmon import CGROUP_PREFIX, Conmon, Created, Launch, scope_of
from criollo.monitor.exits import Exit, Watched, wait_exit
from criollo.monitor.oom import Kills
from criollo.runtimes import fifo
from criollo.runtimes.base import CreateRequest, ExecRequest, ExecResult, Probe
from criollo.runtimes.sealed import CommandLine, SealedProgram
from criollo.telemetry.scrub import scrubbed
from criollo.wire.conmon import Garbled
from criollo.wire.runtime import State, Version, is_gone, known_bad, parse_features, parse_state, parse_version, readable

if TYPE_CHECKING:  # loaded with the first exec
    from criollo.runtimes.ahead import Ahead

_NATIVE: Final = frozenset({"crun", "runc", "youki"})  # their pid is the workload's first process
_PROBE_LIMIT_S: Final = 10.0


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime handler. `root` is the runtime's own state directory (on a tmpfs); `driver` is for what has no record;
    `monitor_cgroup` is "", "pod", or a slice: see `_monitor_place`."""

    name: str
    path: Path
    root: Path
    driver: Driver = Driver.CGROUPFS
    monitor_cgroup: str = ""
    monitor_env: Mapping[str, str] = {}
    create_limit_s: float = 240.0
    no_pivot: bool = False  # the root mount is moved: for nodes whose root is an initramfs
    verb_limit_s: float = 60.0


class OciRuntime:
    """A handler whose program is an OCI runtime. `probe` first: it decides how `kill` works."""

    def __init__(self, handler: Handler, conmon: Conmon, hierarchies: Hierarchies) -> None:
        self._handler, self._conmon, self._hierarchies = handler, conmon, hierarchies
        self._kills = Kills(hierarchies)
        self._sealed = SealedProgram(handler.path)
        self._is_native = False
        self._relays = False
        self._is_crun = False
        self._ahead: Ahead | None = None

    @property
    def name(self) -> str:
        return self._handler.name

    async def probe(self) -> Probe:
        """Version and features of the program; one without `features` has none.

        Raises:
            ToolFailed, TimedOut, HostFailed: it cannot be run or fails at `--version`.
        """
        restore_null()  # of a create that we did not see the end of
        program = process.Program([str(self._handler.path), "--version"])
        said = await process.run(program, what=f"ask runtime handler {self.name} for its version", timeout_s=_PROBE_LIMIT_S)
        version = parse_version(said.stdout)
        self._is_native = version.name in _NATIVE
        self._relays = version.name == "runc"  # see `exec`, `ends`
        self._is_crun = version.name == "crun" == self._handler.path.resolve().name  # not a program around it
        return Probe(version, await self._features(version), known_bad(version))

    async def create(self, request: CreateRequest, ground: Coroutine[Any, Any, None] | None = None) -> Created:
        """Create a container from its bundle, which `ground` completes while the monitor starts.

        Raises:
            ToolFailed: the runtime refused; the message is its own.
            TimedOut: no answer within the handler's create limit.
            whatever `ground` raises.
        """
        monitor = self._monitor_place(request.cgroup_parent, request.container_id)
        launch = Launch(
            container_id=request.container_id,
            name=request.name,
            bundle=request.bundle,
            runtime=self._command(),
            log_path=request.log_path,
            tty=request.tty,
            stdin=request.stdin,
            stdin_once=request.stdin_once,
            systemd_cgroup=self._uses_systemd(request.cgroup_parent),
            cgroup=monitor.path,
            slice_name=monitor.spec_path.partition(":")[0] if self._uses_systemd(request.cgroup_parent) else "",
            env=self._handler.monitor_env,
            timeout_s=self._handler.create_limit_s,
            no_pivot=self._handler.no_pivot,
        )
        try:
            return await self._conmon.create(launch, self._hierarchies, ground)
        except BaseException:
            undo = self.delete(request.container_id, cgroup_parent=request.cgroup_parent, force=True)
            await cleanup(
                undo, limit_s=2 * self._handler.verb_limit_s, what=f"remove half-made container {request.container_id}"
            )
            raise
        finally:
            restore_null()  # conmon opens it for the runtime

    async def start(self, container_id: str, *, has_poststart: bool) -> None:
        """Let the created container run its process.

        Raises:
            ToolFailed: its command does not exist or cannot be executed, or a hook failed.
        """
        if self._is_crun and not has_poststart:
            with explain(f"start container {container_id}"):
                if fifo.let_go(self._handler.root / container_id):
                    return
        await self._verb(container_id, "start", container_id)

    async def kill(self, watched: Watched, number: int) -> bool:
        """Send a signal to the first process; False when it is gone. The start time guards against another's pid.

        Raises:
            ToolFailed: the runtime could not deliver it (only where the runtime must do it).
        """
        if not self._is_native:
            return await self._kill_by_runtime(watched, number)
        pidfd = procfs.open_pidfd(watched.pid, watched.pid_started)
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    async def kill_all(self, watched: Watched) -> None:
        """SIGKILL all processes in the container's cgroup, and its first one. Needs the runtime only without a cgroup.

        Raises:
            HostFailed: some are still there after five seconds.
        """
        if self._is_native or not watched.cgroup:
            await self.kill(watched, signal.SIGKILL)
        if watched.cgroup and not await threads.files(self._hierarchies.kill, watched.cgroup):
            raise HostFailed(f"cannot kill all processes of container {watched.container_id}: some are stuck in the kernel")

    async def delete(self, container_id: str, *, cgroup_parent: str, force: bool = False) -> None:
        """Remove the runtime's state, the cgroups, exit file and attach link. Absence is success.

        With `force` a container that is not stopped is killed: for one that nobody waits for, as its exit is forgotten.
        The plain verb is tried first anyway, because a forced one may wait (runc: 0.1 s) for a death long past.

        Raises:
            ToolFailed, TimedOut: the runtime cannot delete it; what it left in cgroups is removed all the same.
        """
        try:
            await self._delete(container_id, force=force)
        except CriolloError:
            if force:
                await self._remove_places(container_id, cgroup_parent)
            raise
        await self._remove_places(container_id, cgroup_parent)

    async def state(self, container_id: str) -> State | None:
        """The runtime's view of a container; None when it knows none of this id.

        Raises:
            ToolFailed: the verb failed otherwise, or its answer is no state.
        """
        what = f"ask for the state of container {container_id}"
        argv, said = await self._run(what, "state", container_id)
        if said.status != 0:
            if is_gone(message := scrubbed(readable(said.stderr))):
                return None
            raise ToolFailed(what, argv, said.status, message)
        try:
            return parse_state(said.stdout, container_id)
        except Garbled as error:
            raise ToolFailed(what, argv, said.status, str(error)) from None

    async def update(self, container_id: str, resources: bytes) -> None:
        """Apply new limits (`linux.resources` as JSON).

        Raises:
            ToolFailed: the kernel or the runtime refused, for instance a memory limit below what is in use.
        """
        await self._verb(container_id, "update", "--resources", "-", container_id, stdin=resources)

    async def exec_sync(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end; see `execsync.exec_sync`."""
        from criollo.runtimes.execsync import (
            Crowded,
            Run,
            exec_sync,
        )  # with the first one: a node that nobody looks into does without

        run = await self._ahead.take(request) if self._ahead is not None else None
        if run is not None:
            with contextlib.suppress(
                Crowded
            ):  # it started in the container's cgroup, where there is no room for a process more
                return await exec_sync(run, request)
        return await exec_sync(Run(self._command(), request, relays=self._relays), request)

    async def expect_exec(self, request: ExecRequest) -> None:
        """Have a runtime wait for the container's next command, if one came lately; see `ahead`. Only crun waits cheaply."""
        if not self._is_crun or request.joins:
            return
        if self._ahead is None:
            from criollo.runtimes.ahead import Ahead

            self._ahead = Ahead(self._handler.root, self._hierarchies)
        await self._ahead.hold(self._program(), request)

    async def exec_stream(self, request: ExecRequest, streams: Streams) -> int:
        """Run a command between a client's streams; see `exec.exec_stream`."""
        from criollo.runtimes.exec import exec_stream

        return await exec_stream(self._command(), request, streams, relays=self._relays)

    async def wait_exit(self, watched: Watched) -> Exit:
        """Return when the container has ended; see `monitor.exits.wait_exit`."""
        return await wait_exit(watched, self._conmon.exits_dir, self._hierarchies, kills=self._kills)

    def cgroup(self, cgroup_parent: str, container_id: str) -> str:
        """The container's cgroup path below the hierarchies."""
        return container_cgroup(driver_of(cgroup_parent, self._handler.driver), cgroup_parent, container_id).path

    def close(self) -> None:
        """Let go of what makes calls fast; further ones take it again."""
        self._sealed.close()

    def _command(self) -> CommandLine:
        """The program and its global options."""
        program = self._program()
        return CommandLine(*program, f"--root={self._handler.root}", executable=program.executable)

    def _program(self) -> CommandLine:
        return CommandLine(str(self._handler.path), executable=self._sealed.path() if self._is_crun else None)

    async def _features(self, version: Version) -> Mapping[str, object]:
        program = process.Program([str(self._handler.path), "features"])
        said = await process.attempt(program, what=f"ask {version.name} for its features", timeout_s=_PROBE_LIMIT_S)
        if said.status != 0:
            return {}
        try:
            return parse_features(said.stdout)
        except Garbled:
            return {}

    async def _verb(self, container_id: str, *words: str, stdin: bytes = b"") -> None:
        what = f"cannot {words[0]} container {container_id}"
        argv, said = await self._run(what, *words, stdin=stdin)
        if said.status != 0:
            raise ToolFailed(what, argv, said.status, scrubbed(readable(said.stderr) or readable(said.stdout)))

    async def _run(self, what: str, *words: str, stdin: bytes = b"") -> tuple[Sequence[str], process.Finished]:
        command = self._command()
        program = process.Program([*command, *words], executable=command.executable)
        said = await process.attempt(program, what=what, timeout_s=self._handler.verb_limit_s, stdin=stdin)
        return program.argv, said

    async def _delete(self, container_id: str, *, force: bool) -> None:
        try:
            await self._verb(container_id, "delete", container_id)
        except ToolFailed as error:
            if is_gone(error.stderr_tail):
                return
            if not force:
                raise
            await self._verb(container_id, "delete", "--force", container_id)

    async def _kill_by_runtime(self, watched: Watched, number: int) -> bool:
        try:
            await self._verb(watched.container_id, "kill", watched.container_id, str(number))
        except ToolFailed:
            if procfs.is_alive(watched.pid, watched.pid_started):
                raise
            return False
        return True

    def _uses_systemd(self, cgroup_parent: str) -> bool:
        return driver_of(cgroup_parent, self._handler.driver) is Driver.SYSTEMD

    def _monitor_place(self, cgroup_parent: str, container_id: str) -> Place:
        """Where the monitor sits; empty: where the daemon does.

        With cgroupfs "pod" is in the pod's cgroups without memory's; on version 2, which cannot leave one out, beside them.
        """
        where = self._handler.monitor_cgroup
        if self._uses_systemd(cgroup_parent):
            slice_name = cgroup_parent if where == "pod" else where or "system.slice"
            return container_cgroup(Driver.SYSTEMD, slice_name, container_id, prefix=CGROUP_PREFIX)
        if where != "pod":
            return Place("", "")
        if self._hierarchies.is_unified:
            cgroup_parent = os.path.dirname(cgroup_parent)
        return container_cgroup(Driver.CGROUPFS, cgroup_parent, container_id, prefix=CGROUP_PREFIX)

    async def _remove_places(self, container_id: str, cgroup_parent: str) -> None:
        """Container's and monitor's cgroups, as far as the runtime left them; what conmon left."""
        await threads.files(self._remove_cgroups, container_id, cgroup_parent)
        if self._uses_systemd(cgroup_parent):
            units = self._conmon.units
            await together(units.drop(name) for name in (f"crio-{container_id}.scope", scope_of(container_id)))

    def _remove_cgroups(self, container_id: str, cgroup_parent: str) -> None:
        for path in (self.cgroup(cgroup_parent, container_id), self._monitor_place(cgroup_parent, container_id).path):
            if path and self._hierarchies.exists(path):
                self._hierarchies.kill(path)
                self._hierarchies.remove(path)
        self._conmon.forget(container_id)
