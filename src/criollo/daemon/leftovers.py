"""What no row owns: run state, writable layers, layers, and networks of pods that are gone.

    take_away    all that can be found by an id alone, from the bundle and the names of places
    sweep        everything below our directories whose id no row has

Namespaces are found by the run state of their pod only: the directory they are pinned in is shared with others.
"""

import contextlib
import os
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.together import all_through, together
from criollo.containers.context import TUNED, Containers
from criollo.containers.status import MAX_SPEC_BYTES
from criollo.daemon.patience import awhile
from criollo.errors import CriolloError, Invalid, explain
from criollo.images.collect import sweep_layers
from criollo.linux import files, mount
from criollo.linux.namespaces import NamespaceKind, directory_of, unpin
from criollo.model.ids import is_id
from criollo.oci import runtime_spec
from criollo.pods import cgroups
from criollo.pods.context import Pods
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_CONSOLE: Final = re.compile(r"exec-[0-9a-f]{16}")  # runtimes.ends


async def sweep_leftovers(pods: Pods) -> None:
    """Take away what no row owns; what resists is told and stays until the next start."""
    containers = pods.containers
    bundles = await threads.files(_ids_in, containers.places.bundles)
    places = await threads.files(_ids_in, containers.places.pods)
    unowned = {each for each in (*bundles, *places, *containers.roots.ids()) if not _is_owned(pods, each)}
    await together(awhile(pods.tasks, _take_all(pods, each), each) for each in sorted(unowned))
    if await threads.files((containers.places.runroot / TUNED).exists):
        from criollo.containers.tuning import sweep  # few containers have CPUs of their own

        await _tell(sweep(containers), "CPU settings")
    await _tell(threads.files(_sweep_sockets, containers), "sockets")
    await _tell(sweep_layers(containers.images), "layers")
    await _tell(_sweep_work(containers), "directories of work")
    await _tell(pods.network.gc(pods.state.pods), "networks")


async def _sweep_work(containers: Containers) -> None:
    """What a kpod that was killed has left of a load or save, here or where large files wait."""
    images, root = containers.images, containers.places.root
    wanted = {root, root / "kpod", images.layers.root, *([images.big_files] if images.big_files is not None else [])}
    found = [each for each in wanted if await threads.files(_has_work, each)]
    if found:
        from criollo.images.workplace import sweep  # who saves and loads needs it, a daemon mostly not

        for each in found:
            with explain(f"sweep {each}"):
                await threads.files(sweep, each)


def _sweep_sockets(containers: Containers) -> None:
    """Those of seccomp notifiers whose containers are gone, and of terminals that a killed daemon was waiting for."""
    for container_id in _ids_in(containers.places.notifiers):
        if container_id not in containers.state.containers:
            with explain(f"remove the seccomp socket of {container_id}"):
                containers.places.notifier(container_id).unlink(missing_ok=True)
    for bundle in map(containers.places.bundle, _ids_in(containers.places.bundles)):
        with explain(f"sweep {bundle}"), contextlib.suppress(FileNotFoundError):
            for name in filter(_CONSOLE.fullmatch, os.listdir(bundle)):
                (bundle / name).unlink(missing_ok=True)


def _has_work(parent: Path) -> bool:
    return parent.is_dir() and any(name.endswith(".kpod") for name in os.listdir(parent))


def _is_owned(pods: Pods, object_id: str) -> bool:
    return object_id in pods.state.containers or object_id in pods.state.pods


async def _take_all(pods: Pods, object_id: str) -> None:
    is_pod = await threads.files(pods.containers.places.pod(object_id).is_dir)
    await _tell(take_away(pods.containers, object_id), object_id)
    if is_pod:
        await _tell(cgroups.remove_of(pods, object_id), object_id)


async def take_away(containers: Containers, object_id: str, *, cgroup_parent: str = "") -> None:
    """Remove all of a container or pod that can be found by its id: whichever handler made it, wherever its cgroup is.

    Raises:
        CriolloError: something resists; the rest has been tried.
    """
    parent = cgroup_parent or await threads.files(_cgroup_parent, containers, object_id)
    handlers = [containers.handlers.get(name) for name in containers.handlers.names()]
    await all_through(each.delete(object_id, cgroup_parent=parent, force=True) for each in handlers)
    await containers.roots.remove(object_id)
    await threads.mounts(_unpin, containers.places.namespaces, object_id)
    await threads.mounts(_remove_directories, containers, object_id)


def _cgroup_parent(containers: Containers, object_id: str) -> str:
    """What the spec in the bundle says; empty, which is the default, when there is none."""
    try:
        spec = runtime_spec.decode(files.read_limited(containers.places.bundle(object_id) / "config.json", MAX_SPEC_BYTES))
    except (OSError, msgspec.MsgspecError, Invalid):
        return ""
    path = spec.linux.cgroups_path if spec.linux is not None else ""
    return os.path.dirname(path) if path.startswith("/") else path.partition(":")[0]


def _unpin(directory: Path, object_id: str) -> None:
    with explain(f"remove the namespaces of {object_id}"):
        for kind in NamespaceKind:
            unpin(directory_of(directory, kind) / object_id)


def _remove_directories(containers: Containers, object_id: str) -> None:
    with explain(f"remove the run state of {object_id}"):
        for directory in (containers.places.bundle(object_id), containers.places.pod(object_id)):
            for target in mount.below(directory):
                mount.unmount(target, detach=True)
            files.remove_tree(directory)


def _ids_in(directory: Path) -> list[str]:
    return sorted(filter(is_id, os.listdir(directory))) if directory.is_dir() else []


async def _tell(work: Awaitable[object], what: str) -> None:
    try:
        await work
    except (CriolloError, OSError) as error:
        log.warning("leftover stays until the next start", object=what, error=error)
