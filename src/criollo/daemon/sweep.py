"""The sweeper: retries unfinished teardowns, deletes networks of pods that are gone, keeps the databases' logs short."""

import asyncio
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


async def sweep_forever(pods: Pods) -> None:
    """Once in 30 s; an error of one object is told and waits for the next round."""
    while True:
        await asyncio.sleep(EVERY_S)
        await sweep_once(pods)


async def sweep_once(pods: Pods) -> None:
    """Retry what is left over and nobody works on: teardowns, networks, layers nobody needs, rows, write-ahead logs.

    At once: what hangs shall not keep the rest from its turn.
    """
    containers = pods.containers
    work = [
        _try(tear_down_container(containers, each.id), each.id)
        for each in containers.state.containers
        if each.state is ContainerState.REMOVING and not containers.locks.is_held(each.id)
    ]
    for pod in pods.state.pods:
        if pods.locks.is_held(pod.id):
            continue
        if pod.state is PodState.REMOVING:
            work.append(_try(tear_down_pod(pods, pod.id), pod.id))
        elif pod.state is PodState.NOTREADY and not pod.network_down:
            work.append(_try(_disconnect(pods, pod.id), pod.id))
    await together((*work, _house(pods)))


async def _house(pods: Pods) -> None:
    await _try(pods.network.gc(pods.state.pods, verb=False), "networks")
    await _try(collect_layers(pods.containers.images), "layers")
    await _try(_save(pods), "rows")


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


async def _try(work: Awaitable[object], what: str) -> None:
    try:
        await work
    except CriolloError as error:
        log.warning("sweep failed; trying again later", object=what, every_s=EVERY_S, error=error)
