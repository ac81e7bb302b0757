"""Learn that a container ended, and how: the monitor's pidfd, its exit file, and by `oom` whether its memory was used up.

Conmon writes `<exits_dir>/<id>` (the exit code in decimal) when the container's output is in the log, and ends. So the
pidfd of conmon is the event, and the file must be there by then. If it is not, the monitor died before its container:
nobody reads that container's output any more, so it is killed and reported as 137 with the reason.

A `wait_exit` never fails for what it finds: junk in the file counts as no file. Nor for what it lacks: without a descriptor
to look with, it tries again. Paths are opened without following links and without blocking, and read to a few bytes (threats
R1, R3).
Source: conmon 2.1, src/conmon.c.
"""

import asyncio
import contextlib
import os
import signal
import stat
import time
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio import process, threads
from criollo.errors import Exhausted, refuse_scarce
from criollo.linux import procfs
from criollo.linux.cgroup import Hierarchies
from criollo.monitor.oom import Kills
from criollo.telemetry import texts
from criollo.telemetry.log import get_logger
from criollo.telemetry.seldom import Seldom
from criollo.wire.conmon import MAX_EXIT_FILE, Garbled, parse_exit_file

log = get_logger(__name__)

KILLED: Final = 128 + signal.SIGKILL
MONITOR_LOST: Final = "the monitor (conmon) of the container ended without an exit code; the container was killed"
_DEATH_LIMIT_S: Final = 30.0
_AGAIN_S: Final = 0.5
_scarce = Seldom()


class Exit(NamedTuple):
    """How a container ended. `at_ns` is wall-clock; `reason` is empty unless `code` is not the container's own word."""

    code: int
    at_ns: int
    oom_killed: bool
    reason: str = ""


class Watched(NamedTuple):
    """A container to wait for. `cgroup` is its path below the hierarchies, empty when not known."""

    container_id: str
    bundle: Path
    pid: int
    pid_started: int
    monitor_pid: int
    monitor_started: int
    cgroup: str = ""


async def wait_exit(watched: Watched, exits_dir: Path, hierarchies: Hierarchies, *, kills: Kills) -> Exit:
    """Return when the container has ended and its log is complete. May be repeated, also by a later daemon.

    A monitor that is gone already is no error: its exit file tells, else the container is killed.
    """
    while True:
        try:
            kills.begin(watched.cgroup)
            return await _wait_exit(watched, exits_dir, hierarchies, kills)
        except Exhausted as error:
            if times := _scarce.due():
                log.warning("ends of containers cannot be seen now; trying again", error=error, times=times)
        await asyncio.sleep(_AGAIN_S)


async def _wait_exit(watched: Watched, exits_dir: Path, hierarchies: Hierarchies, kills: Kills) -> Exit:
    """As `wait_exit`. Raises Exhausted when descriptors have run out."""
    pidfd = procfs.open_pidfd(watched.monitor_pid, watched.monitor_started)
    if pidfd is None:
        _reap_zombie(watched.monitor_pid, watched.monitor_started)
    else:
        try:
            await process.wait_pidfd(pidfd)
            process.reap(pidfd)
        finally:
            os.close(pidfd)
    found = read_exit(watched, exits_dir, kills)
    return found if found is not None else await _lost(watched, hierarchies, kills)


def end_monitor(watched: Watched) -> None:
    """SIGKILL the monitor of a container whose processes are gone, when it does not end by itself; `wait_exit` notices."""
    pidfd = procfs.open_pidfd(watched.monitor_pid, watched.monitor_started)
    if pidfd is not None:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def read_exit(watched: Watched, exits_dir: Path, kills: Kills) -> Exit | None:
    """The exit that the monitor recorded; None when there is none, or nothing that could be one.

    Raises:
        Exhausted: no descriptor is left to look with, at the file or for the cause.
    """
    try:
        fd = os.open(exits_dir / watched.container_id, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        refuse_scarce(error, f"cannot read the exit file of container {watched.container_id}")
        log.warning("exit file cannot be opened", container=watched.container_id, error=error)
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Garbled(f"exit file is {stat.filemode(status.st_mode)}")
        code = parse_exit_file(os.read(fd, MAX_EXIT_FILE))
    except (Garbled, OSError) as error:
        log.warning("exit file cannot be read", container=watched.container_id, error=error)
        return None
    finally:
        os.close(fd)
    return Exit(code, status.st_mtime_ns, kills.of(watched.bundle, watched.cgroup))


async def _lost(watched: Watched, hierarchies: Hierarchies, kills: Kills) -> Exit:
    """The monitor is gone without a word: end the container, wherever it still lives."""
    oom = kills.of(watched.bundle, watched.cgroup)
    pidfd = procfs.open_pidfd(watched.pid, watched.pid_started)
    told = texts.MONITOR_STOPPED.format(watched.container_id)
    log.error(told, monitor=watched.monitor_pid)
    if pidfd is not None:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await process.wait_pidfd(pidfd)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
    if watched.cgroup and not await threads.files(hierarchies.kill, watched.cgroup, limit_s=_DEATH_LIMIT_S):
        log.error("processes of the container cannot be killed", container=watched.container_id, cgroup=watched.cgroup)
    return Exit(KILLED, time.time_ns(), oom, MONITOR_LOST)


def _reap_zombie(pid: int, started: int) -> None:
    """A monitor of ours that ended before anybody waited for it."""
    if procfs.start_time(pid) == started:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            process.reap(pidfd)
            os.close(pidfd)
