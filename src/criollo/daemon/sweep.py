"""The sweeper: retries unfinished teardowns, deletes networks of pods that are gone, keeps the databases' logs short."""

import asyncio
import functools
from collections.abc import Awaitable
from typing import Final

from criollo.aio import threads
from criollo.aio.together import together
from criollo.containers.teardown import tear_down as tear_down_container
from criollo.errors import CriolloError
from criollo.images.collect import collect_layers
from criollo.model.container import ContainerState
from criollo.model.ids import PodId
from criollo.model.pod import PodState
from criollo.pods import connection
from criollo.pods.context import Pods
from criollo.pods.teardown import tear_down as tear_down_pod
from criollo.state.database import checkpoint
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

EVERY_S: Final = 30


class Failures:
    """What this round and the one before could not do: what fails so for days is told once, until it fails otherwise."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}
        self._now: dict[str, str] = {}

    def is_news(self, what: str, error: Exception) -> bool:
        """Note an error of this round; whether the round before had another, or none."""
        self._now[what] = str(error)
        return self._before.get(what) != self._now[what]

    def turn(self) -> None:
        """A round has ended."""
        self._before, self._now = self._now, {}


async def sweep_forever(pods: Pods) -> None:
    """Once in 30 s; an error of one object is told and waits for the next round."""
    failures = Failures()
    while True:
        await asyncio.sleep(EVERY_S)
        await sweep_once(pods, failures)
        failures.turn()


async def sweep_once(pods: Pods, failures: Failures) -> None:
    """Retry what is left over and nobody works on: teardowns, networks, layers nobody needs, rows, write-ahead logs.

    At once: what hangs shall not keep the rest from its turn.
    """
    containers = pods.containers
    attempt = functools.partial(_try, failures)
    work = [
        attempt(tear_down_container(containers, each.id), each.id)
        for each in containers.state.containers
        if each.state is ContainerState.REMOVING and not containers.locks.is_held(each.id)
    ]
    for pod in pods.state.pods:
        if pods.locks.is_held(pod.id):
            continue
        if pod.state is PodState.REMOVING:
            work.append(attempt(tear_down_pod(pods, pod.id), pod.id))
        elif pod.state is PodState.NOTREADY and not pod.network_down:
            work.append(attempt(_disconnect(pods, pod.id), pod.id))
    await together((*work, _house(pods, failures)))


async def _house(pods: Pods, failures: Failures) -> None:
    await _try(failures, pods.network.gc(pods.state.pods, verb=False), "networks")
    await _try(failures, collect_layers(pods.containers.images), "layers")
    await _try(failures, _save(pods), "rows")


async def _disconnect(pods: Pods, pod_id: PodId) -> None:
    async with pods.locks.hold(pod_id):
        if pod_id in pods.state.pods:
            await connection.disconnect(pods, pod_id)


async def _save(pods: Pods) -> None:
    """Rows that a full disk did not take, and the write-ahead logs."""
    pods.state.containers.save()
    pods.state.pods.save()
    for path in (pods.state.path, pods.containers.images.rows.path):
        await threads.databases(checkpoint, path)


async def _try(failures: Failures, work: Awaitable[object], what: str) -> None:
    try:
        await work
    except (CriolloError, OSError) as error:  # OSError: of one object, and no reason to end the daemon for all
        tell = log.warning if failures.is_news(what, error) else log.debug
        tell("sweep failed; trying again later", object=what, every_s=EVERY_S, error=error)
