"""The infra container: a pause process that holds a pod's PID namespace, for pods that share one.

Its id is the pod's. It runs the configured pause image when that is here, else `catatonit -P` of the host: no pod start
needs a network (D9).
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.containers.confine import confinement, labels_of, ready
from criollo.containers.context import Containers
from criollo.containers.views import mapped_for, pod_view
from criollo.errors import Unavailable, explain
from criollo.images import resolve
from criollo.images.artifacts import require_image
from criollo.linux.cgroup import container_cgroup, driver_of
from criollo.linux.files import remove_tree
from criollo.model.container import ContainerConfig, ContainerSecurity, ImageSpec, Mount
from criollo.model.ids import PodId
from criollo.model.moves import can_become
from criollo.model.pod import InfraProcess, NamespaceMode, Pod, PodState, Resources
from criollo.monitor.exits import Watched, end_monitor
from criollo.monitor.strays import end_monitor_of
from criollo.oci import runtime_spec
from criollo.oci.image_spec import decode_config
from criollo.pods import namespaces
from criollo.pods.cgroups import as_owned
from criollo.pods.context import Pods
from criollo.runtimes.base import CreateRequest
from criollo.specgen.build import build
from criollo.specgen.request import Built, Confinement, ImageDefaults, PlannedMount, SpecRequest
from criollo.specgen.users import ResolvedUser
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

OOM_SCORE_ADJ = -998  # as kubelet's own: the pause process must outlive what it holds together


class _Program(NamedTuple):
    """What the infra container runs, and from where."""

    rootfs: str
    argv: tuple[str, ...]
    env: tuple[str, ...]
    mounts: tuple[PlannedMount, ...]


def is_needed(pods: Pods, pod: Pod) -> bool:
    """A pod has an infra container when it shares a PID namespace, or when the settings keep one for every pod."""
    return pod.config.security.namespaces.pid is NamespaceMode.POD or not pods.drop_infra


async def start(pods: Pods, pod: Pod) -> Pod:
    """Create and start the infra container; the pod's PID namespace is its own.

    Raises:
        Unavailable: there is neither the pause image nor catatonit, and the message says how to get one; or its process has
            ended already.
    """
    containers = pods.containers
    request = _request(pods, pod, await _program(pods, pod))
    bundle = containers.places.bundle(pod.id)
    await ready(containers, pod.config.security)
    built = await threads.files(_write_bundle, containers, pod, request)
    for note in built.notes:
        containers.tell_once(note, pod.id)
    runtime = containers.handlers.get(pod.handler)
    created = await runtime.create(
        CreateRequest(container_id=pod.id, name=pod.name, bundle=bundle, cgroup_parent=pod.cgroup_parent)
    )
    containers.pin_monitor(pod.id, created.monitor_pid)
    process = InfraProcess(
        container_id=pod.id,
        pid=created.pid,
        pid_started=created.pid_started,
        monitor_pid=created.monitor_pid,
        monitor_started=created.monitor_started,
    )
    pod = pods.state.pods.put(msgspec.structs.replace(as_owned(pods, pod), infra=process))  # so teardown waits for it
    if pod.config.security.namespaces.pid is NamespaceMode.POD:
        pod = await pin_pids(pods, pod, process)
    await runtime.start(pod.id, has_poststart=built.spec.has_poststart)
    return pod


async def pin_pids(pods: Pods, pod: Pod, process: InfraProcess) -> Pod:
    """The pod with the PID namespace of its infra process pinned, in place of whatever was there.

    Raises:
        Unavailable: that process has ended.
    """
    place = await namespaces.pin_pids(pod.id, process, directory=pods.containers.places.namespaces)
    return msgspec.structs.replace(pod, namespaces={**pod.namespaces, "pid": place})


async def remove(pods: Pods, pod: Pod) -> None:
    """Kill and delete the infra container, as far as there is one; also the one a crash left without a record."""
    containers = pods.containers
    bundle = containers.places.bundle(pod.id)
    if pod.infra is None and not bundle.exists() and not containers.roots.path(pod.id).exists():
        return
    runtime = containers.runtime_of(pod.handler)
    if pod.infra is not None:
        await _kill(pods, _watched(pods, pod, pod.infra))
    else:
        await threads.spawning(end_monitor_of, bundle)
    await runtime.delete(pod.id, cgroup_parent=pod.cgroup_parent, force=True)
    await containers.roots.remove(pod.id)
    with explain(f"remove the bundle of pod sandbox {pod.id}"):
        await threads.files(remove_tree, bundle)


async def _kill(pods: Pods, target: Watched) -> None:
    """Kill, and wait for the monitor before `delete` takes the exit file away; one that does not end is killed."""
    containers = pods.containers
    runtime = containers.runtime_of(pods.state.pod(PodId(target.container_id)).handler)
    await runtime.kill(target, signal.SIGKILL)
    try:
        async with asyncio.timeout(containers.monitor_s):
            await runtime.wait_exit(target)
    except TimeoutError:
        log.warning("infra container does not end; killing it with its monitor", pod=target.container_id)
        await runtime.kill_all(target)
        end_monitor(target)


def watch(pods: Pods, pod: Pod) -> None:
    """Make the pod NOTREADY as soon as its infra container ends."""
    if pod.infra is not None:
        pods.tasks.start(_watch(pods, pod, pod.infra), name=f"watch pod {pod.id}")


async def _watch(pods: Pods, pod: Pod, infra: InfraProcess) -> None:
    await pods.containers.runtime_of(pod.handler).wait_exit(_watched(pods, pod, infra))
    current = pods.state.pods.get(pod.id)
    if current is not None and can_become(current.state, PodState.NOTREADY) and current.infra == infra:
        log.warning("infra container ended; the pod is not ready any more", pod=pod.id)
        pods.state.pods.keep(msgspec.structs.replace(current, state=PodState.NOTREADY))


def _watched(pods: Pods, pod: Pod, infra: InfraProcess) -> Watched:
    return Watched(
        container_id=pod.id,
        bundle=pods.containers.places.bundle(pod.id),
        pid=infra.pid,
        pid_started=infra.pid_started,
        monitor_pid=infra.monitor_pid,
        monitor_started=infra.monitor_started,
        cgroup=pods.containers.runtime_of(pod.handler).cgroup(pod.cgroup_parent, pod.id),
    )


async def _program(pods: Pods, pod: Pod) -> _Program:
    containers = pods.containers
    image = resolve.find(containers.images, pods.pause_image) if pods.pause_image else None
    if image is not None:
        config = decode_config(require_image(image).config).config
        rootfs = await containers.roots.create(pod.id, image.layers, mapped=mapped_for(pod), label=pod.mount_label)
        argv = pods.pause_command or (*config.entrypoint, *config.cmd)
        return _Program(str(rootfs), argv, config.env, ())
    if pods.catatonit is None:
        raise Unavailable(
            f"cannot run pod sandbox {pod.config.name}: it shares a PID namespace, and neither pause image "
            f"{pods.pause_image or '(none configured)'} nor the program catatonit is here; pull the one or install the other"
        )
    mapped = mapped_for(pod)
    if mapped is not None:
        rootfs = await containers.roots.create(pod.id, (), mapped=mapped, label=pod.mount_label)
    else:
        rootfs = containers.places.bundle(pod.id) / "rootfs"
        with explain(f"make the root filesystem of pod sandbox {pod.id}"):
            await threads.files(_make_rootfs, rootfs)
    mount = Mount(container_path="/catatonit", host_path=str(pods.catatonit), readonly=True)
    return _Program(str(rootfs), ("/catatonit", "-P"), (), (PlannedMount(mount=mount, source=str(pods.catatonit)),))


def _request(pods: Pods, pod: Pod, program: _Program) -> SpecRequest:
    shared = pod.config.security.namespaces
    own = shared if shared.pid is NamespaceMode.NODE else msgspec.structs.replace(shared, pid=NamespaceMode.CONTAINER)
    config = ContainerConfig(
        name="POD",
        image=ImageSpec(image=pods.pause_image),
        command=program.argv,
        resources=Resources(oom_score_adj=OOM_SCORE_ADJ, cpuset_cpus=pods.containers.rules.infra_cpus),
        security=ContainerSecurity(
            namespaces=own,
            readonly_rootfs=True,
            no_new_privs=True,
            supplemental_groups=pod.config.security.supplemental_groups,
        ),
    )
    return SpecRequest(
        container_id=pod.id,
        container_name=pod.name,
        config=config,
        pod=pod_view(pod),
        image=ImageDefaults(env=program.env),
        user=_user(pod),
        rootfs=program.rootfs,
        cgroups_path=container_cgroup(driver_of(pod.cgroup_parent), pod.cgroup_parent, pod.id).spec_path,
        image_name=pods.pause_image,
        mounts=program.mounts,
        is_infra=True,
        defaults=pods.containers.defaults_for(pod),
    )


def _make_rootfs(rootfs: Path) -> None:
    os.makedirs(rootfs, 0o755, exist_ok=True)
    (rootfs / "catatonit").touch()


def _user(pod: Pod) -> ResolvedUser:
    security = pod.config.security
    gid = security.run_as_group or 0
    return ResolvedUser(uid=security.run_as_user or 0, gid=gid, groups=(gid, *security.supplemental_groups), home="/")


def _write_bundle(containers: Containers, pod: Pod, request: SpecRequest) -> Built:
    """The spec, in one hop: a profile may be a file to read, and takes a while to compile the first time."""
    confined = msgspec.structs.replace(request, confinement=_confinement(containers, pod))
    built = build(confined, containers.host)
    with explain(f"write bundle of pod sandbox {pod.id}"):
        _write(containers.places.bundle(pod.id) / "config.json", runtime_spec.encode(built.spec))
    return built


def _confinement(containers: Containers, pod: Pod) -> Confinement:
    return confinement(containers, pod.config.security, pod.handler, labels=labels_of(pod))


def _write(path: os.PathLike[str], content: bytes) -> None:
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
