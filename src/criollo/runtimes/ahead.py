"""Runtimes that wait for the next command of a container, so that a probe does not wait for a runtime's start.

    first, second ExecSync     the runtime is spawned: it loads its libraries, reads the container's state, then the process
    after the second           another is spawned whose process is a pipe: it comes as far as that and waits
    the third                  its process is written into the pipe: more than half of what crun does has passed before

What a runtime looked at when it started, that the container runs, is looked at again before it goes on. It ends with its
container, when nobody asks for a while, and with the daemon: when that is killed, the pipe ends without a process in it.

On cgroup version 1 and hybrid nodes crun moves its child into the container's cgroups, which waits for the kernel (decision 10)
and is most of a probe's time. There it waits in the cgroups of the container itself, and works with a copy of its state
that names no cgroup: `_settled`. On version 2 it starts the child there, which costs nothing.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import process, threads
from criollo.aio.streams import readable
from criollo.aio.together import first
from criollo.errors import CriolloError, explain
from criollo.linux import procfs
from criollo.linux.cgroup import Hierarchies
from criollo.runtimes.base import ExecRequest
from criollo.runtimes.execsync import Run
from criollo.runtimes.sealed import CommandLine
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

MOST: Final = 16  # 0.75 MiB each
KEPT_S: Final = 65.0  # probes come every ten seconds, seldom less often than every minute
_REMEMBERED: Final = 1000


class Ahead:
    """Those of one crun: at most one for each container, `most` in all. `root` is crun's state directory."""

    def __init__(self, root: Path, hierarchies: Hierarchies, *, most: int = MOST, kept_s: float = KEPT_S) -> None:
        self._root, self._hierarchies, self._most, self._kept_s = root, hierarchies, most, kept_s
        self._waiting: dict[str, _Waiting] = {}
        self._asked: dict[str, float] = {}

    async def take(self, request: ExecRequest) -> Run | None:
        """The runtime that waits for this container, with its command now; None where there is none.

        One that is being spawned is waited for: whoever spawned another would wait for the same, and longer.
        """
        waiting = self._waiting.get(request.container_id)
        if waiting is None or waiting.is_taken or request.tty or request.joins:
            return None
        waiting.is_taken = True
        try:
            await waiting.spawned.wait()
            return waiting.hand_over(request)
        finally:
            self._forget(request.container_id, waiting)  # at once: the next may be wanted before `hold` hears of it
            waiting.over.set()

    async def hold(self, program: CommandLine, request: ExecRequest) -> None:
        """After an exec: have a runtime wait for the container's next, if this was not the first lately; until it is over.

        `program` is crun without options.
        """
        if not self._is_wanted(request.container_id):
            return
        waiting = self._waiting[request.container_id] = _Waiting(request, self._root, self._hierarchies)
        try:
            is_ready = await threads.spawning(waiting.start, program)
            waiting.spawned.set()
            if is_ready:
                async with asyncio.timeout(self._kept_s):
                    await first(waiting.over.wait(), readable(waiting.container_fd))
        except TimeoutError:
            pass
        except CriolloError as error:
            log.debug("no runtime waits for the next exec", container=request.container_id, cause=error)
        finally:
            self._forget(request.container_id, waiting)
            waiting.spawned.set()
            await waiting.end()

    def _forget(self, container_id: str, waiting: "_Waiting") -> None:
        if self._waiting.get(container_id) is waiting:
            del self._waiting[container_id]

    def _is_wanted(self, container_id: str) -> bool:
        now = time.monotonic()
        if len(self._asked) >= _REMEMBERED:
            self._asked = {name: at for name, at in self._asked.items() if now - at < self._kept_s}
        is_repeated = now - self._asked.get(container_id, -self._kept_s) < self._kept_s
        if is_repeated or len(self._asked) < _REMEMBERED:
            self._asked[container_id] = now
        return is_repeated and container_id not in self._waiting and len(self._waiting) < self._most


class _Waiting:
    """One, from its spawn until somebody takes it or nobody will."""

    def __init__(self, request: ExecRequest, root: Path, hierarchies: Hierarchies) -> None:
        self._request, self._root, self._hierarchies = request, root, hierarchies
        self._run: Run | None = None
        self._cgroup = ""
        self.container_fd = -1
        self.is_taken = self._is_ready = False
        self.spawned, self.over = asyncio.Event(), asyncio.Event()

    def start(self, program: CommandLine) -> bool:
        """Spawn it (blocking), if the container still runs and crun's state of it is as known.

        Raises:
            HostFailed: it cannot be spawned, or not join the container's cgroups.
        """
        pidfd = procfs.open_pidfd(self._request.pid, self._request.pid_started)
        if pidfd is None:
            return False
        self.container_fd = pidfd
        with explain(f"prepare the next exec in container {self._request.container_id}"):
            status = _status(self._root / self._request.container_id)
            if status is None:
                return False
            self._cgroup = str(status["cgroup-path"])
            if self._hierarchies.is_unified or not self._cgroup:
                self._spawn(program, self._root)
            else:
                self._spawn(program, _settled(self._root, self._request, status))
                self._join()
        self._is_ready = True
        return True

    def _spawn(self, program: CommandLine, root: Path) -> None:
        runtime = CommandLine(*program, f"--root={root}", executable=program.executable)
        self._run = Run(runtime, self._request, relays=False)
        self._run.start(is_ahead=True)

    def _join(self) -> None:
        """All of the container's cgroups, as crun's child would: what is in one hierarchy only would have its limits only."""
        assert self._run is not None
        for root in self._hierarchies.roots():
            place = root / self._cgroup.lstrip("/")
            if place.is_dir():
                (place / "cgroup.procs").write_text(str(self._run.command.pid), "ascii")

    def hand_over(self, request: ExecRequest) -> Run | None:
        """It goes on, and belongs to the caller; None where it cannot: it or its container has ended or is frozen."""
        run = self._run
        if run is None or not self._is_ready or run.command.has_ended or process.has_ended(self.container_fd):
            return None
        if self._cgroup and self._hierarchies.is_frozen(self._cgroup):
            return None
        try:
            run.command.proceed(request)
        except CriolloError:  # a process larger than a pipe may be
            return None
        self._run = None
        return run

    async def end(self) -> None:
        if self.container_fd >= 0:
            os.close(self.container_fd)
            self.container_fd = -1
        if self._run is not None:
            run, self._run = self._run, None
            await run.end()


def _status(state: Path) -> dict[str, object] | None:
    """What crun keeps of a container; None where it is not as known. Source: crun, status.c."""
    try:
        status = msgspec.json.decode((state / "status").read_bytes(), type=dict[str, object])
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return status if isinstance(status.get("cgroup-path"), str) else None


def _settled(root: Path, request: ExecRequest, status: Mapping[str, object]) -> Path:
    """A state directory like `root` for this container alone, in its bundle, with the same files but a status without cgroup.

    Source: crun, cgroup.c: without path and scope it moves nothing.
    """
    made, half, name = request.bundle / "ahead", request.bundle / "ahead.half", request.container_id
    if made.exists():
        return made
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)  # without its parents: the bundle goes with its container
    (half / name).mkdir(mode=0o700)
    for file in (root / name).iterdir():
        if file.name != "status":
            (half / name / file.name).symlink_to(file)
    (half / name / "status").write_bytes(msgspec.json.encode({**status, "cgroup-path": "", "scope": ""}))
    return half.rename(made)
