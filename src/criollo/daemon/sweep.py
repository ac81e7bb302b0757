"""The sweeper: retries unfinished teardowns, deletes networks of pods that are gone, keeps the databases' logs short."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from criollo.aio import threads
from criollo.containers.teardown import tear_down as tear_down_container
from criollo.errors import CriolloError
from criollo.images.remove import collect_layers
from criollo.model.container import ContainerState
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
    """Retry what is left over: teardowns with trouble, networks, layers nobody needs, write-ahead logs."""
    containers = pods.containers
    for container in containers.state.containers:
        if container.state is ContainerState.REMOVING and container.trouble:
            await _try(tear_down_container(containers, container.id), container.id)
    for pod in pods.state.pods:
        if pod.state is PodState.REMOVING and pod.trouble:
            await _try(tear_down_pod(pods, pod.id), pod.id)
        elif pod.state is PodState.NOTREADY and not pod.network_down:
            await _try(connection.disconnect(pods, pod.id), pod.id)
    await _try(pods.network.gc([pod.id for pod in pods.state.pods]), "networks")
    await _try(collect_layers(containers.images), "layers")
    for path in (pods.state.path, containers.images.rows.path):
        await threads.databases(checkpoint, path)


async def _try(work: Awaitable[object], what: str) -> None:
    try:
        await work
    except CriolloError as error:
        log.warning("sweep failed; trying again later", object=what, every_s=EVERY_S, error=error)
