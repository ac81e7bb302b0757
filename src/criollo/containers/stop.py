"""StopContainer: the stop signal, a grace period, then SIGKILL until it is gone."""

import asyncio
import signal
import time
from typing import Final

from criollo.containers.context import Containers
from criollo.containers.watch import ended_within, watched
from criollo.errors import CriolloError, TimedOut
from criollo.linux import procfs
from criollo.model.container import Container, ContainerState
from criollo.model.ids import ContainerId
from criollo.model.moves import is_live
from criollo.monitor.exits import end_monitor
from criollo.telemetry import texts
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

KILL_LIMIT_S: Final = 120
FIRST_BACKOFF_S: Final = 0.02


async def stop_container(containers: Containers, container_id: str, *, grace_s: float) -> None:
    """Stop a container: its stop signal, then SIGKILL after `grace_s` seconds; 0 or less kills at once.

    Safe to repeat; a later call may shorten the grace of the one in progress, never lengthen it. An unknown or stopped
    container is success. Returns when the exit is recorded, so logs are complete.

    Raises:
        Invalid: several containers' ids begin so.
        TimedOut: still alive 120 s after the first SIGKILL (blocked in the kernel).
        CriolloError: neither the runtime nor the cgroup lets us kill it.
    Source: CRI v1, StopContainer; OCI runtime-spec, section Kill.
    """
    found = containers.state.containers.find_any(container_id)
    if found is not None:
        await stop(containers, found.id, grace_s=grace_s)


async def stop(containers: Containers, container_id: ContainerId, *, grace_s: float) -> None:
    """`stop_container` for an id that is known, visible or not."""
    container = containers.state.containers.get(container_id)
    if container is None or not is_live(container.state):
        return
    ends = time.monotonic() + max(0.0, grace_s)
    if ends < containers.grace_ends.get(container_id, float("inf")):
        containers.grace_ends[container_id] = ends
        if container_id in containers.grace_changed:
            containers.grace_changed[container_id].set()
    await containers.stops.join(container_id, lambda job: _stop(containers, container))


async def _stop(containers: Containers, container: Container) -> None:
    containers.grace_changed[container.id] = asyncio.Event()
    try:
        # A container that was never started has no handler for a signal: nothing to be graceful about.
        if container.state is ContainerState.RUNNING and not await _politely(containers, container):
            told = texts.STOP_TIMED_OUT.format(container.id, container.stop_signal)
            log.warning(told, container=container.id)
        with containers.sessions.killing(container.id):
            await _kill(containers, container)
    finally:
        del containers.grace_changed[container.id]
        containers.grace_ends.pop(container.id, None)


async def _politely(containers: Containers, container: Container) -> bool:
    """Signal and wait out the grace period; whether the container has ended."""
    if containers.grace_ends[container.id] <= time.monotonic():
        return True  # no grace was asked for: not a container's fault
    try:
        await containers.runtime_of(container.handler).kill(watched(containers, container), container.stop_signal)
    except CriolloError as error:
        log.warning("stop signal not delivered; killing the container", container=container.id, error=error)
        return True
    changed = containers.grace_changed[container.id]
    while (left_s := containers.grace_ends[container.id] - time.monotonic()) > 0:
        changed.clear()
        if await ended_within(containers, container.id, left_s, unless=changed):
            return True
    return container.id not in containers.ended


async def _kill(containers: Containers, container: Container) -> None:
    """SIGKILL with growing pauses until the exit is recorded; a monitor that does not record it is ended, too."""
    runtime, target = containers.runtime_of(container.handler), watched(containers, container)
    started, backoff_s = time.monotonic(), FIRST_BACKOFF_S
    while container.id in containers.ended:
        waited_s = time.monotonic() - started
        is_dead = not procfs.is_alive(container.pid, container.pid_started)
        if waited_s > KILL_LIMIT_S:
            stuck = container.monitor_pid if is_dead else container.pid
            raise TimedOut(
                f"cannot stop container {container.id}: process {stuck} still lives {KILL_LIMIT_S} s after SIGKILL; "
                f"see /proc/{stuck}/stack for what the kernel waits for"
            )
        if is_dead and waited_s > containers.monitor_s:
            log.warning("monitor does not say that its container has ended; killing it", container=container.id)
            end_monitor(target)
        try:
            await runtime.kill(target, signal.SIGKILL)
        except CriolloError as error:
            log.warning("runtime does not kill the container; emptying its cgroup", container=container.id, error=error)
            await runtime.kill_all(target)
        await ended_within(containers, container.id, backoff_s)
        backoff_s = min(backoff_s * 2, 5)
