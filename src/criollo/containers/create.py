"""CreateContainer, as a job with stages: a request that is cut joins it again or finds its result."""

import functools
import os
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.aio.jobs import Job
from criollo.aio.together import all_through
from criollo.aio.uncollected import Uncollected
from criollo.containers import linked_logs, volumes
from criollo.containers.confine import confinement, container_labels, labels_of, listen, ready, seccomp_of
from criollo.containers.context import Containers
from criollo.containers.rootfs import Ground, Prepared, prepare
from criollo.containers.shape import Asked, Shape, applied, shape_of
from criollo.containers.storage_limit import limit_of
from criollo.containers.teardown import remove, tear_down
from criollo.containers.views import image_defaults, log_path, mapped_for, pod_view
from criollo.containers.watch import watch
from criollo.errors import Exists, Invalid, NotFound, WrongState, explain
from criollo.images import resolve
from criollo.images.artifacts import require_image
from criollo.images.collect import leased
from criollo.images.trusted import judge_local
from criollo.images.volumes import Volume, find_volumes, reported
from criollo.linux.cgroup import container_cgroup, driver_of
from criollo.linux.namespaces import NamespaceKind, pin_of
from criollo.model.container import Container, ContainerConfig, ContainerState, ContainerUser
from criollo.model.ids import ContainerId, PodId, container_name, new_id
from criollo.model.image import Image
from criollo.model.pod import NamespaceMode, Pod, PodState
from criollo.model.signals import parse_signal, signal_name
from criollo.oci import runtime_spec
from criollo.oci.image_spec import decode_config
from criollo.runtimes.base import CreateRequest, Runtime
from criollo.security.seccomp import Profile
from criollo.specgen import users
from criollo.specgen.build import build
from criollo.specgen.process import usual_stop_signal
from criollo.specgen.request import DeviceNode, ImageDefaults, PlannedMount, SpecRequest
from criollo.telemetry import texts
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def create_container(
    containers: Containers, pod_id: str, config: ContainerConfig, *, in_privileged_pod: bool = False
) -> ContainerId:
    """Make a container of a ready pod: rootfs mounted, monitor running, first process waiting for StartContainer.

    A repeated request for one that was created and not started returns its id. One of the same name that is being removed, and
    may have waited for room on a disk, is removed first. `in_privileged_pod`: the client says that the pod is privileged by
    now, as kubelet does when a privileged container comes to debug one that was not (decision 13).

    Raises:
        NotFound: no such pod or image.
        WrongState: the pod is not ready.
        Exists: the name is taken.
        CriolloError: what has the name cannot be removed.
        Invalid: the request or the image asks for what cannot be; the message names the field. Privileged in a pod that is not.
    Source: CRI v1, CreateContainer.
    """
    pod = containers.state.pods.find(pod_id)
    _require_ready(pod)
    if config.security.privileged and not (pod.config.security.privileged or in_privileged_pod):
        expected = f"false: no privileged container allowed in sandbox {pod.id}, which is not privileged"
        raise Invalid("config.linux.security_context.privileged", True, expected)
    name = container_name(config.name, config.attempt, pod.config.name, pod.config.namespace, pod.config.uid)
    key = _job_name(pod.id, name)
    await _vacate(containers, key, name)
    if containers.creates.get(key) is None and (taken := containers.state.containers.by_name(name)) is not None:
        if taken.state is not ContainerState.CREATED or taken.pod_id != pod.id:
            raise Exists("container", name, f"container {taken.id} ({taken.state}) of pod sandbox {taken.pod_id}")
        containers.state.containers.uncollected.discard(taken.id)
        return taken.id
    uncollected = Uncollected[ContainerId](
        containers.state.containers.uncollected,
        containers.tasks,
        keep_s=containers.uncollected_s,
        tear_down=functools.partial(tear_down, containers),
    )
    return await uncollected.join(containers.creates, key, lambda job: _create(containers, job, pod, config, name))


async def _vacate(containers: Containers, key: str, name: str) -> None:
    taken = containers.state.containers.by_name(name)
    if containers.creates.get(key) is None and taken is not None and taken.state is ContainerState.REMOVING:
        await remove(containers, taken.id)


async def abandon_creates(containers: Containers, pod_id: PodId) -> None:
    """Cut creates of a pod that is going down, and wait until nothing of them is left. No new ones start: it is not ready."""
    why = WrongState("pod sandbox", pod_id, "being stopped", "READY")
    half_made = [each for each in containers.state.containers.of_pod(pod_id) if each.state is ContainerState.CREATING]
    await all_through(containers.creates.abandon(_job_name(pod_id, each.name), why) for each in half_made)


def _job_name(pod_id: str, name: str) -> str:
    return f"{name} of pod sandbox {pod_id}"


def _require_ready(pod: Pod) -> None:
    if pod.state is not PodState.READY:
        raise WrongState("pod sandbox", pod.id, str(pod.state), "READY")


async def _create(containers: Containers, job: Job[ContainerId], pod: Pod, config: ContainerConfig, name: str) -> ContainerId:
    await containers.images.foreign.refresh()
    image, images = await _judged(containers, pod, config)
    profile, notifier = await _asked_of_seccomp(containers, image, pod, config)
    pod = containers.state.pods.find(pod.id)  # from here to the row without a pause: who stops the pod finds it
    _require_ready(pod)
    for used in (image, *(each.image for each in images.values())):
        resolve.require(containers.images, used.id)  # judging may take a while: it must be here still
    runtime = containers.handlers.get(pod.handler)
    labels = container_labels(containers, config, pod)
    container_id = ContainerId(new_id())
    container = Container(
        id=container_id,
        pod_id=pod.id,
        name=name,
        config=config,
        handler=pod.handler,
        state=ContainerState.CREATING,
        created_ns=_created_ns(containers, pod, config.name),
        image_id=image.id,
        image_ref=image.digests[0] if image.digests else image.id,
        log_path=log_path(pod, config, container_id),
        resources=config.resources,
        volume_images=tuple(dict.fromkeys(each.image.id for each in images.values())),
        mounts=reported(config.mounts, images),
        privileged=config.security.privileged,
        process_label=labels.process,
        mount_label=labels.mount,
        notifier=notifier,
    )
    try:
        containers.state.containers.insert(container)
        with leased(containers.images, [*image.layers, *(name for each in images.values() for name in each.image.layers)]):
            container = await _bring_up(containers, job, pod, container, _Used(image, images, profile), runtime=runtime)
    except BaseException:
        await cleanup(tear_down(containers, container.id), what=f"create of container {container.id}")
        raise
    log.info("container created", container=container.id, pod=pod.id, name=config.name, image=image.id, pid=container.pid)
    return container.id


def _created_ns(containers: Containers, pod: Pod, name: str) -> int:
    return containers.now_after(
        each.created_ns for each in containers.state.containers.of_pod(pod.id) if each.config.name == name
    )


async def _judged(containers: Containers, pod: Pod, config: ContainerConfig) -> tuple[Image, dict[int, Volume]]:
    """The image to run and those to mount, as the policy of the pod's namespace lets them."""
    image = require_image(resolve.require(containers.images, config.image.image))
    namespace = pod.config.namespace
    await judge_local(containers.images, image, config.image, namespace=namespace)
    return image, await find_volumes(containers.images, config.mounts, namespace=namespace)


async def _asked_of_seccomp(
    containers: Containers, image: Image, pod: Pod, config: ContainerConfig
) -> tuple[Profile | None, str]:
    """The profile that annotations name, and what the notifier shall do; hardly any node allows them."""
    if not containers.defaults_for(pod).allowed_annotations:
        return None, ""
    from criollo.containers import seccomp_asked

    return await seccomp_asked.artifact_profile(containers, image, pod, config), seccomp_asked.notifier_of(containers, pod)


class _Used(NamedTuple):
    """The image that a container runs, those that it mounts, by their places among its mounts, and the seccomp profile that is
    an artifact."""

    image: Image
    volumes: Mapping[int, Volume]
    profile: Profile | None = None


class _Gathered(NamedTuple):
    """What is known of a container before its spec is written."""

    image: ImageDefaults
    ground: Ground
    mounts: tuple[PlannedMount, ...]
    devices: tuple[DeviceNode, ...]
    host_devices: tuple[DeviceNode, ...]
    default_mounts: tuple[runtime_spec.Mount, ...]
    target_pid_ns: str
    profile: Profile | None


class _Written(NamedTuple):
    """What came out of writing the spec; `notes` are for the log."""

    user: users.ResolvedUser
    notes: tuple[str, ...]
    has_poststart: bool
    shape: Shape


async def _bring_up(
    containers: Containers, job: Job[ContainerId], pod: Pod, container: Container, used: _Used, *, runtime: Runtime
) -> Container:
    """The monitor starts beside the making of its bundle: it takes as long, and waits."""
    defaults = image_defaults(decode_config(used.image.config))
    written: list[_Written] = []

    async def ground() -> None:
        written.append(await _lay_ground(containers, job, pod, container, (used, defaults)))
        job.stage("container runtime creation")

    created = await runtime.create(_create_request(containers, pod, container), ground())
    containers.pin_monitor(container.id, created.monitor_pid)
    user, notes, has_poststart, shape = written[0]
    for note in notes:
        containers.tell_once(note, container.id)
    container = msgspec.structs.replace(
        container,
        state=ContainerState.CREATED,
        pid=created.pid,
        pid_started=created.pid_started,
        monitor_pid=created.monitor_pid,
        monitor_started=created.monitor_started,
        user=ContainerUser(uid=user.uid, gid=user.gid, groups=user.groups),
        has_poststart=has_poststart,
        resources=shape.resources,
        shared_cpus=shape.shared_cpus,
        no_cpu_quota=shape.no_cpu_quota,
        tuning=shape.tuning,
        stop_signal=_stop_signal(container.config, defaults),
    )
    containers.state.containers.put(container)
    watch(containers, container)
    return container


def _stop_signal(config: ContainerConfig, image: ImageDefaults) -> int:
    """What the client chose, else the image, else what is usual for the program."""
    if not config.stop_signal:
        return parse_signal(image.stop_signal or usual_stop_signal(config, image))
    if log.is_debug:
        told = texts.STOP_SIGNAL.format(signal_name(config.stop_signal))
        log.debug(told)
    return config.stop_signal


async def _lay_ground(
    containers: Containers, job: Job[ContainerId], pod: Pod, container: Container, wanted: tuple[_Used, ImageDefaults]
) -> _Written:
    """Root filesystem, volumes, spec: all that the runtime finds in the bundle."""
    job.stage("container storage creation")
    mapped, (used, defaults) = mapped_for(pod), wanted
    await containers.images.foreign.check(used.image, *(volume.image for volume in used.volumes.values()))
    limit = limit_of(container.config, pod.config, containers.defaults_for(pod), otherwise=containers.roots.limit)
    label = container.mount_label
    rootfs = await containers.roots.create(container.id, used.image.layers, mapped=mapped, limit=limit, label=label)
    bundle = containers.places.bundle(container.id)
    job.stage("container volume configuration")
    place = Ground(rootfs, bundle) if mapped is None else Ground(rootfs, bundle, mapped.owner())
    gathered = _Gathered(
        image=defaults,
        ground=place,
        mounts=await volumes.plan_mounts(containers, container, used.volumes, mapped=mapped) if container.config.mounts else (),
        devices=await volumes.find_devices(containers, pod, container),
        host_devices=await volumes.host_devices() if container.privileged else (),
        target_pid_ns=await _target_pid_namespace(containers, container),
        default_mounts=await volumes.default_mounts(containers, place, label=label),
        profile=used.profile,
    )
    job.stage("container spec configuration")
    await ready(containers, container.config.security)
    if container.notifier:
        await listen(containers, container)
    written = await threads.files(_write_bundle, containers, pod, container, gathered)
    if written.shape.no_cpu_quota:
        from criollo.containers.performance import lift_quota  # few handlers allow it

        await lift_quota(containers, pod)
    return written


def _request(containers: Containers, pod: Pod, container: Container, gathered: _Gathered, prepared: Prepared) -> SpecRequest:
    return SpecRequest(
        container_id=container.id,
        container_name=container.name,
        config=container.config,
        pod=pod_view(pod),
        image=gathered.image,
        user=prepared.user,
        rootfs=str(gathered.ground.rootfs),
        cgroups_path=container_cgroup(driver_of(pod.cgroup_parent), pod.cgroup_parent, container.id).spec_path,
        image_name=container.config.image.as_written,
        image_id=container.image_id,
        image_ref=container.image_ref,
        created_ns=container.created_ns,
        log_path=container.log_path,
        target_pid_ns=gathered.target_pid_ns,
        mounts=(*prepared.mounts, *gathered.mounts),
        devices=gathered.devices,
        host_devices=gathered.host_devices,
        default_mounts=gathered.default_mounts,
        confinement=confinement(
            containers,
            container.config.security,
            container.handler,
            seccomp=seccomp_of(containers, container, gathered.profile),
            labels=labels_of(container),
        ),
        defaults=containers.defaults_for(pod),
    )


async def _target_pid_namespace(containers: Containers, container: Container) -> str:
    """The PID namespace of the container that this one debugs, pinned under this one's id; empty unless asked for.

    Raises:
        NotFound, WrongState: the target is not there or does not run.
    """
    namespaces = container.config.security.namespaces
    if namespaces.pid is not NamespaceMode.TARGET:
        return ""
    target = containers.state.containers.find_any(namespaces.target_id)
    if target is None or target.pod_id != container.pod_id:
        raise NotFound("container", namespaces.target_id, "the target of a shared PID namespace must be in the same pod")
    place = containers.places.target_pids(container.id)
    with explain(f"keep the PID namespace of container {target.id}"):
        if not await threads.mounts(pin_of, target.pid, target.pid_started, NamespaceKind.PID, place):
            raise WrongState("container", target.id, str(target.state), "RUNNING")
    return str(place)


def _write_bundle(containers: Containers, pod: Pod, container: Container, gathered: _Gathered) -> _Written:
    """All that touches files, in one hop: the image's accounts, the spec."""
    ground = gathered.ground
    linked_logs.link(pod.files, pod.logs, container.id, container.log_path)
    prepared = prepare(ground, container.config, gathered.image, image_volume_mode=containers.image_volume_mode)
    asked = _asked(containers, pod, container)
    shape = shape_of(asked, containers.rules, cgroup_parent=pod.cgroup_parent)
    request = containers.additions.to(_request(containers, pod, container, gathered, prepared), asked, ground)
    built = build(applied(shape, request), containers.host)
    with explain(f"write bundle of container {container.id}"):
        fd = os.open(ground.bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(runtime_spec.encode(built.spec))
    return _Written(prepared.user, (*shape.notes, *built.notes), built.spec.has_poststart, shape)


def _asked(containers: Containers, pod: Pod, container: Container) -> Asked:
    return Asked(
        config=container.config,
        pod=pod.config,
        allowed=containers.defaults_for(pod).allowed_annotations,
        handler=pod.handler or containers.handlers.default,
    )


def _create_request(containers: Containers, pod: Pod, container: Container) -> CreateRequest:
    return CreateRequest(
        container_id=container.id,
        name=container.name,
        bundle=containers.places.bundle(container.id),
        log_path=container.log_path,
        tty=container.config.tty,
        stdin=container.config.stdin,
        stdin_once=container.config.stdin_once,
        cgroup_parent=pod.cgroup_parent,
    )
