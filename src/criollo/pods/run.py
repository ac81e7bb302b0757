"""RunPodSandbox, as a job with stages: namespaces, network, files, cgroup, and an infra container only where one is needed."""

import functools

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.aio.jobs import Job
from criollo.aio.together import together
from criollo.aio.uncollected import Uncollected
from criollo.containers import linked_logs
from criollo.containers.confine import pod_labels
from criollo.errors import Exists
from criollo.model.ids import PodId, new_id, pod_name
from criollo.model.pod import NamespaceMode, Pod, PodConfig, PodState
from criollo.pods import cgroups, connection, files, infra, namespaces
from criollo.pods.context import Pods
from criollo.pods.shm import shm_bytes
from criollo.pods.teardown import remove_pod, tear_down
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def run_pod(pods: Pods, config: PodConfig, handler: str) -> PodId:
    """Make a pod sandbox ready; a repeated request for one that is ready returns its id. One of the same name that is being
    removed, and may have waited for room on a disk, is removed first.

    Raises:
        NotFound: no such runtime handler.
        Exists: the name is taken by a pod that is not ready.
        CriolloError: what has the name cannot be removed.
        Invalid: the request asks for what cannot be; the message names the field.
    Source: CRI v1, RunPodSandbox.
    """
    pods.containers.handlers.get(handler)
    name = pod_name(config.name, config.namespace, config.uid, config.attempt)
    await _vacate(pods, name)
    if pods.runs.get(name) is None and (taken := pods.state.pods.by_name(name)) is not None:
        if taken.state is not PodState.READY:
            raise Exists("pod sandbox", name, f"pod sandbox {taken.id} ({taken.state})")
        pods.state.pods.uncollected.discard(taken.id)
        return taken.id
    uncollected = Uncollected[PodId](
        pods.state.pods.uncollected, pods.tasks, keep_s=pods.uncollected_s, tear_down=functools.partial(tear_down, pods)
    )
    return await uncollected.join(pods.runs, name, lambda job: _run(pods, job, config, name, handler=handler))


async def _vacate(pods: Pods, name: str) -> None:
    taken = pods.state.pods.by_name(name)
    if pods.runs.get(name) is None and taken is not None and taken.state is PodState.REMOVING:
        await remove_pod(pods, taken.id)


async def _run(pods: Pods, job: Job[PodId], config: PodConfig, name: str, *, handler: str) -> PodId:
    if config.security.namespaces.network is not NamespaceMode.NODE:
        await _network_ready(pods, job, config)
    config = await _with_userns(pods, config, handler)  # from here to the row without a pause: no other pod gets the same ids
    wanted = namespaces.plan(config, defaults=pods.default_sysctls)  # refuses what cannot be before anything is made
    pod_id = PodId(new_id())
    labels = pod_labels(pods.containers, config)  # from here to the row without a pause: no other pod gets the same
    pod = Pod(
        id=pod_id,
        name=name,
        config=config,
        handler=handler,
        state=PodState.CREATING,
        created_ns=_created_ns(pods, config),
        hostname=namespaces.hostname(config, pod_id),
        cgroup_parent=cgroups.parent_of(pods, config.cgroup_parent, pod_id),
        network_down=config.security.namespaces.network is NamespaceMode.NODE,
        process_label=labels.process,
        mount_label=labels.mount,
        log_directory="" if config.log_directory or not pods.log_dir else f"{pods.log_dir}/{pod_id}",
    )
    if config.annotations:
        allowed = pods.containers.defaults_for(pod).allowed_annotations
        pod = msgspec.structs.replace(pod, files=linked_logs.planned(config, allowed))
    try:
        pods.state.pods.insert(pod)
        pod = await _bring_up(pods, job, pod, wanted)
    except BaseException:
        await cleanup(tear_down(pods, pod_id), what=f"run of pod sandbox {pod_id}")
        raise
    log.info("pod sandbox ready", pod=pod_id, name=config.name, namespace=config.namespace, ips=",".join(pod.ips))
    return pod_id


def _created_ns(pods: Pods, config: PodConfig) -> int:
    same = config.uid, config.name, config.namespace
    found = ((each.created_ns, each.config) for each in pods.state.pods)
    return pods.containers.now_after(ns for ns, its in found if (its.uid, its.name, its.namespace) == same)


async def _network_ready(pods: Pods, job: Job[PodId], config: PodConfig) -> None:
    """Wait until pods can be attached, as long as some request waits for this one: a node's network may come after it."""
    network = pods.network.status()
    if not network.ready:
        namespaces.plan(config, defaults={})  # what cannot be need not wait
        job.stage("sandbox network ready")
        log.warning("network is not ready; the pod sandbox waits for it", name=config.name, cause=network.message)
        with job.while_awaited(f"network is not ready: {network.message}"):
            await pods.network.wait_ready()


async def _with_userns(pods: Pods, config: PodConfig, handler: str) -> PodConfig:
    """The request with the user namespace that an annotation or the configuration asks for; hardly any do."""
    if pods.userns is None and not any("userns-mode" in key for key in config.annotations):
        return config
    from criollo.pods import userns

    return await userns.chosen(pods, config, handler)


async def _bring_up(pods: Pods, job: Job[PodId], pod: Pod, wanted: namespaces.Plan) -> Pod:
    pod = await _lay_ground(pods, job, pod, wanted)
    if infra.is_needed(pods, pod):
        job.stage("sandbox container runtime creation")
        pod = await infra.start(pods, pod)
    pod = pods.state.pods.put(msgspec.structs.replace(cgroups.as_owned(pods, pod), state=PodState.READY))
    infra.watch(pods, pod)
    return pod


async def _lay_ground(pods: Pods, job: Job[PodId], pod: Pod, wanted: namespaces.Plan) -> Pod:
    """Namespaces and then network; files and cgroup beside them, since plugins take most of the time."""
    places = pods.containers.places
    size = shm_bytes(pod.config, pods.containers.defaults_for(pod).allowed_annotations, default=files.DEFAULT_SHM_BYTES)
    paths = namespaces.places(pod.id, wanted, directory=places.namespaces)
    ips: tuple[str, ...] = ()
    network_name = ""
    written: dict[str, str] = {}

    async def connect() -> None:
        nonlocal ips, network_name
        job.stage("sandbox namespace creation")
        pinned = msgspec.structs.replace(pod, namespaces=paths)
        pin = namespaces.pin_pod(pod, wanted, directory=places.namespaces, make_userns=pods.containers.workers.userns)
        await together((pin, connection.announce(pods, pinned)))
        job.stage("sandbox network creation")
        ips, network_name = await connection.connect(pods, pinned)

    async def write() -> None:
        nonlocal written
        written = await files.write(pod, runroot=places.runroot, shm_bytes=size)
        if pod.files:
            await threads.mounts(linked_logs.bind, pod.files, pod.logs)

    async def confine() -> None:
        await cgroups.ensure(pods, pod)

    await together((connect(), write(), confine()))
    pod = pods.state.pod(pod.id)  # it says whose the cgroup is
    return msgspec.structs.replace(pod, namespaces=paths, files={**pod.files, **written}, ips=ips, network_name=network_name)
