"""The namespaces of a pod: which ones it has, where they are pinned, making and letting go of them.

Net, ipc and uts are made and pinned in-process and live without a process; the uts namespace follows the net namespace,
so that a host-network pod has the node's hostname. A user namespace (and what it owns) is made by a child with a single
thread, which `make_userns` stands for. The PID namespace is the infra container's, pinned once that is
made: when its process ends, another may get its number, and no container must join that one's.

Each path ends in the pod id, so teardown needs only the id.
"""

import errno
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Exhausted, Invalid, Unavailable, Unsupported, explain
from criollo.linux import namespaces as kernel
from criollo.linux.namespaces import SYSCTL_ROOT, NamespaceKind
from criollo.model.ids import PodId, is_hostname, short
from criollo.model.pod import InfraProcess, NamespaceMode, Pod, PodConfig, Record, UserNamespace
from criollo.pods import sysctls
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

MODES: Final = "config.linux.security_context.namespace_options"

# Makes a user namespace with its mappings, and namespaces of the other kinds owned by it, with their sysctls; gives their
# descriptors, which live until the context ends. A sysctl that the kernel refuses is an OSError with its file's name.
MakeUserns = Callable[
    [UserNamespace, frozenset[NamespaceKind], Mapping[str, str]], AbstractAsyncContextManager[Mapping[NamespaceKind, int]]
]


class Plan(Record, frozen=True, kw_only=True):
    """What `pin_pod` will do for a pod."""

    kinds: frozenset[NamespaceKind]
    sysctls: dict[str, str] = {}
    user: UserNamespace | None = None


def plan(config: PodConfig, *, defaults: Mapping[str, str]) -> Plan:
    """The namespaces that are pinned for a pod, and the sysctls written in them.

    `defaults` are the node's sysctls; one that a pod's namespaces have no place for is dropped with a warning.

    Raises:
        Invalid: a mode that a pod cannot have, or a sysctl that it may not set.
    """
    kinds = wanted(config)
    chosen = sysctls.choose(config.sysctls, defaults, kinds)
    for sentence in chosen.dropped:
        log.warning("default sysctl not applied", pod=config.name, cause=sentence)
    user = config.security.namespaces.user if NamespaceKind.USER in kinds else None
    values = chosen.chosen if user is None else sysctls.fitted(chosen.chosen, user.gids)
    return Plan(kinds=kinds, sysctls=values, user=user)


def wanted(config: PodConfig) -> frozenset[NamespaceKind]:
    """The kinds of namespace that a pod has of its own and that are pinned.

    Raises:
        Invalid: a mode that a pod cannot have.
    """
    options = config.security.namespaces
    for field, mode in (("network", options.network), ("ipc", options.ipc)):
        if mode not in (NamespaceMode.POD, NamespaceMode.NODE):
            raise Invalid(f"{MODES}.{field}", mode.name, "POD or NODE")
    kinds = set()
    if options.network is NamespaceMode.POD:
        kinds |= {NamespaceKind.NET, NamespaceKind.UTS}
    if options.ipc is NamespaceMode.POD:
        kinds.add(NamespaceKind.IPC)
    if options.user is not None and options.user.mode is not NamespaceMode.NODE:
        if options.user.mode is not NamespaceMode.POD:
            raise Invalid(f"{MODES}.userns_options.mode", options.user.mode.name, "POD or NODE")
        kinds.add(NamespaceKind.USER)
    return frozenset(kinds)


def hostname(config: PodConfig, pod_id: PodId) -> str:
    """The pod's hostname: as asked, else the node's for host network, else the first digits of the id.

    Raises:
        Invalid: no hostname, or longer than the kernel takes.
    """
    if config.hostname:
        if not is_hostname(config.hostname):
            raise Invalid("config.hostname", config.hostname, "1 to 64 letters, digits, '.', '_' and '-'")
        return config.hostname
    return socket.gethostname() if config.security.namespaces.network is NamespaceMode.NODE else short(pod_id)


async def prepare(directory: Path) -> None:
    """Make the directories; once at start."""
    with explain(f"prepare the namespaces directory {directory}"):
        await threads.mounts(kernel.prepare_directory, directory)


def places(pod_id: PodId, wish: Plan, *, directory: Path) -> dict[str, str]:
    """Where `pin_pod` will pin: kind → path."""
    return {str(kind): str(_path(directory, kind, pod_id)) for kind in sorted(wish.kinds)}


async def pin_pod(pod: Pod, wish: Plan, *, directory: Path, make_userns: MakeUserns | None = None) -> None:
    """Make and pin the namespaces of a pod at their `places`, with hostname and sysctls set and `lo` up.

    On an error the caller tears down (`unpin_pod`).

    Raises:
        Invalid: a sysctl that the kernel does not take.
        Unsupported: a user namespace where this node makes none.
        Exhausted, HostFailed: the kernel refused.
    """
    where = {kind: _path(directory, kind, pod.id) for kind in sorted(wish.kinds)}
    if wish.user is not None and make_userns is None:
        raise Unsupported(f"cannot make a user namespace for pod {pod.id}: this node has no maker of them")
    name = (pod.hostname or short(pod.id)) if NamespaceKind.UTS in wish.kinds else None
    async with AsyncExitStack() as stack:
        with explain(f"create the namespaces of pod {pod.id}"):
            try:
                made: Mapping[NamespaceKind, int] = {}
                values = wish.sysctls
                if wish.user is not None and make_userns is not None:
                    made, values = await stack.enter_async_context(make_userns(wish.user, wish.kinds, wish.sysctls)), {}
                await threads.fresh(kernel.pin, wish.kinds, where, hostname=name, sysctls=values, made=made)
            except OSError as error:
                _explain_sysctl(error, wish.sysctls)
                _explain_limit(error, pod.id)
                raise


async def pin_pids(pod_id: PodId, process: InfraProcess, *, directory: Path) -> str:
    """Pin the PID namespace of a pod's infra process, in place of whatever was there; returns where.

    Raises:
        Unavailable: that process has ended.
        HostFailed: the kernel refused.
    """
    path = _path(directory, NamespaceKind.PID, pod_id)
    with explain(f"keep the PID namespace of pod {pod_id}"):
        if not await threads.mounts(_pin_anew, process, path):
            raise Unavailable(f"cannot share processes in pod {pod_id}: its infra container has ended; make the pod again")
    return str(path)


async def unpin_pod(pod: Pod, *, directory: Path) -> None:
    """Let go of all namespaces pinned for a pod, also of leftovers that are plain files; safe to repeat.

    Raises:
        HostFailed: the kernel refused.
    """
    with explain(f"remove the namespaces of pod {pod.id}"):
        removed = await threads.mounts(_unpin_all, pod.id, directory)
    for path in removed:
        if path.parent.name == "netns":
            log.info("Removed netns path", path=path)


def _pin_anew(process: InfraProcess, path: Path) -> bool:
    kernel.unpin(path)
    return kernel.pin_of(process.pid, process.pid_started, NamespaceKind.PID, path)


def _unpin_all(pod_id: PodId, namespaces_dir: Path) -> list[Path]:
    return [path for kind in NamespaceKind if kernel.unpin(path := _path(namespaces_dir, kind, pod_id))]


def _path(namespaces_dir: Path, kind: NamespaceKind, pod_id: PodId) -> Path:
    return kernel.directory_of(namespaces_dir, kind) / pod_id


def _explain_limit(error: OSError, pod_id: PodId) -> None:
    """Raise Exhausted for ENOSPC of unshare(2): the kernel's word for a limit, although no disk is full."""
    if error.errno == errno.ENOSPC and error.filename is None:
        raise Exhausted(
            f"cannot create the namespaces of pod {pod_id}: no more namespaces allowed; raise user.max_net_namespaces, "
            "user.max_ipc_namespaces and user.max_uts_namespaces"
        ) from error


def _explain_sysctl(error: OSError, chosen: Mapping[str, str]) -> None:
    """Raise Invalid when the error is about a sysctl's file: the request is at fault, not the host."""
    shown = str(error.filename or "")
    for name, value in chosen.items():
        relative = "/".join(part.replace("/", ".") for part in name.split("."))
        if shown == f"{SYSCTL_ROOT}/{relative}":
            cause = "a sysctl of the pod's namespace" if error.errno == errno.ENOENT else "a value that the kernel takes"
            raise Invalid(f"{sysctls.FIELD}[{name}]", value, f"{cause} ({error.strerror})") from error
