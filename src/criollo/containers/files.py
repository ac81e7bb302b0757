"""Files out of a container and into it, for `kpod cp`: no CRI call has that.

A container that runs is entered by the root of its first process, opened as a directory: so volumes are there, and
read-only mounts are read-only. One that does not run has its root filesystem, without volumes. Either way the directory
goes to a worker that takes it for its own root; no process of ours enters a namespace of the container.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.errors import Denied, Invalid, Unavailable, WrongState, explain
from criollo.linux import files, procfs
from criollo.model.container import Container, ContainerState
from criollo.workers.ids import Ids
from criollo.workers.landing import Shape
from criollo.workers.messages import CollectJob, Copied, PlaceJob
from criollo.workers.pool import Transfer

_LIVE = (ContainerState.CREATED, ContainerState.RUNNING)


class CopySource(NamedTuple):
    """What is copied into a container: its shape, and its last name."""

    shape: Shape
    base: str = ""


@contextlib.asynccontextmanager
async def copy_out(
    containers: Containers, container_id: str, path: str, *, name: str, follow: bool = False
) -> AsyncIterator[Transfer[Copied]]:
    """Read a path of a container as a tar, in which it is called `name`, from the block's `pipe_fd`; then ask `result`.

    Raises (from the block's end, or from `result`):
        NotFound, WrongState, Invalid: no such container, or one that has no files now.
        HostFailed: the path is not there, or the kernel refused.
        Unavailable: the container ended meanwhile.
    """
    container = find_container(containers, container_id)
    path = _checked(container, path)
    async with _root(containers, container) as root:
        async with containers.workers.copy(
            root, CollectJob(path=path, name=name, follow=follow, ids=_ids(containers, container))
        ) as job:
            yield job
        _still_runs(container)


@contextlib.asynccontextmanager
async def copy_in(containers: Containers, container_id: str, path: str, source: CopySource) -> AsyncIterator[Transfer[Copied]]:
    """Write a tar, given to the block's `pipe_fd`, to a path of a container; then ask `result`.

    Raises (from the block's end, or from `result`):
        NotFound, WrongState, Invalid: no such container, or one that has no files now.
        Denied: its root filesystem is read-only.
        Damaged, Exhausted, HostFailed: an entry cannot be made; those before it are there.
        Unavailable: the container ended meanwhile.
    """
    container = find_container(containers, container_id)
    path = _checked(container, path)
    is_readonly = container.config.security.readonly_rootfs or containers.defaults_of(container.handler).read_only
    if is_readonly and container.state not in _LIVE:
        raise Denied(f"cannot copy to container {container.id}: its root filesystem is read-only")
    job = PlaceJob(path=path, shape=str(source.shape), base=source.base, ids=_ids(containers, container))
    async with _root(containers, container) as root:
        async with containers.workers.copy(root, job) as transfer:
            yield transfer
        _still_runs(container)


def _checked(container: Container, path: str) -> str:
    """The path from the root. Raises Invalid, and Unavailable for a volume that is not there now."""
    if not path or "\0" in path or len(path) > 4096:
        raise Invalid("path", path[:200], "a path in the container, of at most 4096 characters")
    path = path if path.startswith("/") else f"/{path}"
    if container.state in _LIVE:
        return path
    plain = os.path.normpath(path)
    for mount in container.config.mounts:
        target = os.path.normpath(mount.container_path)
        if plain == target or plain.startswith(target.rstrip("/") + "/"):
            raise WrongState("container", container.id, str(container.state), f"RUNNING, because {target} is a volume")
    return path


@contextlib.asynccontextmanager
async def _root(containers: Containers, container: Container) -> AsyncIterator[int]:
    fd = await threads.descriptor(lambda: _open_root(containers, container))
    try:
        yield fd
    finally:
        os.close(fd)


def _open_root(containers: Containers, container: Container) -> int:
    if container.state not in _LIVE:
        with explain(f"open the root filesystem of container {container.id}"):
            return files.open_directory(containers.roots.path(container.id))
    ended = Unavailable(f"cannot copy files of container {container.id}: its process has just ended; try again")
    if not procfs.is_alive(container.pid, container.pid_started):
        raise ended
    try:
        fd = files.open_directory(f"/proc/{container.pid}/root")
    except OSError as error:
        raise ended from error
    if procfs.is_alive(container.pid, container.pid_started):  # so it was this process that was opened
        return fd
    os.close(fd)
    raise ended


def _still_runs(container: Container) -> None:
    """Volumes go with the process: what came from below them, or went there, may be somewhere else."""
    if container.state in _LIVE and not procfs.is_alive(container.pid, container.pid_started):
        raise Unavailable(f"container {container.id} ended while files were copied; look at what has arrived")


def _ids(containers: Containers, container: Container) -> Ids:
    pod = containers.state.pods.get(container.pod_id)
    user = pod.user_namespace if pod is not None else None
    if user is None:
        return Ids()
    uids, gids = (
        tuple((each.container_id, each.host_id, each.length) for each in mappings) for mappings in (user.uids, user.gids)
    )
    return Ids(uids=uids, gids=gids)
