"""Values of ours as CRI messages. Pure functions; times are nanoseconds since the epoch on both sides."""

from collections.abc import Sequence
from typing import Final

from criollo.cri.facts import HandlerFacts, NodeFacts
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.signals import cri_signal
from criollo.model.container import Container, ContainerState, ImageSpec, Mount, Propagation
from criollo.model.image import Image
from criollo.model.pod import IdMapping, Namespaces, Pod, PodState, Resources
from criollo.pods.events import Event

_CONTAINER_STATES: Final = {
    ContainerState.CREATED: pb.CONTAINER_CREATED,
    ContainerState.RUNNING: pb.CONTAINER_RUNNING,
    ContainerState.EXITED: pb.CONTAINER_EXITED,
}
_PROPAGATIONS: Final = {
    Propagation.PRIVATE: pb.PROPAGATION_PRIVATE,
    Propagation.HOST_TO_CONTAINER: pb.PROPAGATION_HOST_TO_CONTAINER,
    Propagation.BIDIRECTIONAL: pb.PROPAGATION_BIDIRECTIONAL,
}


def pod_state(state: PodState) -> pb.PodSandboxState:
    return pb.SANDBOX_READY if state is PodState.READY else pb.SANDBOX_NOTREADY


def container_state(state: ContainerState) -> pb.ContainerState:
    return _CONTAINER_STATES.get(state, pb.CONTAINER_UNKNOWN)


def pod(value: Pod) -> pb.PodSandbox:
    """A pod as lists show it."""
    return pb.PodSandbox(
        id=value.id,
        metadata=pod_metadata(value),
        state=pod_state(value.state),
        created_at=value.created_ns,
        labels=value.config.labels,
        annotations=value.config.annotations,
        runtime_handler=value.handler,
    )


def pod_status(value: Pod) -> pb.PodSandboxStatus:
    """A pod as its status shows it; no addresses with the node's network."""
    network = pb.PodSandboxNetworkStatus()
    if value.ips and not value.host_network:
        network.ip = value.ips[0]
        network.additional_ips.extend(pb.PodIP(ip=ip) for ip in value.ips[1:])
    options = namespaces(value.config.security.namespaces)
    return pb.PodSandboxStatus(
        id=value.id,
        metadata=pod_metadata(value),
        state=pod_state(value.state),
        created_at=value.created_ns,
        network=network,
        linux=pb.LinuxPodSandboxStatus(namespaces=pb.Namespace(options=options)),
        labels=value.config.labels,
        annotations=value.config.annotations,
        runtime_handler=value.handler,
    )


def pod_metadata(value: Pod) -> pb.PodSandboxMetadata:
    config = value.config
    return pb.PodSandboxMetadata(name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt)


def namespaces(value: Namespaces) -> pb.NamespaceOption:
    options = pb.NamespaceOption(
        network=int(value.network),  # type: ignore[arg-type]
        pid=int(value.pid),  # type: ignore[arg-type]
        ipc=int(value.ipc),  # type: ignore[arg-type]
        target_id=value.target_id,
    )
    if value.user is not None:
        options.userns_options.mode = int(value.user.mode)  # type: ignore[assignment]
        options.userns_options.uids.extend(_mappings(value.user.uids))
        options.userns_options.gids.extend(_mappings(value.user.gids))
    return options


def container(value: Container) -> pb.Container:
    """A container as lists show it."""
    return pb.Container(
        id=value.id,
        pod_sandbox_id=value.pod_id,
        metadata=container_metadata(value),
        image=image_spec(value.config.image),
        image_ref=value.image_ref,
        state=container_state(value.state),
        created_at=value.created_ns,
        labels=value.config.labels,
        annotations=value.config.annotations,
        image_id=value.image_id,
    )


def event(value: Event) -> pb.ContainerEventResponse:
    """What happened, with the statuses of that moment."""
    return pb.ContainerEventResponse(
        container_id=value.id,
        container_event_type=int(value.kind),  # type: ignore[arg-type]
        created_at=value.at_ns,
        pod_sandbox_status=pod_status(value.pod),
        containers_statuses=[container_status(each) for each in value.containers],
    )


def container_status(value: Container) -> pb.ContainerStatus:
    """A container as its status shows it."""
    user = pb.LinuxContainerUser(uid=value.user.uid, gid=value.user.gid, supplemental_groups=value.user.groups)
    return pb.ContainerStatus(
        id=value.id,
        metadata=container_metadata(value),
        state=container_state(value.state),
        created_at=value.created_ns,
        started_at=value.started_ns,
        finished_at=value.finished_ns,
        exit_code=value.exit_code,
        image=image_spec(value.config.image),
        image_ref=value.image_ref,
        reason=value.reason,
        message=value.message,
        labels=value.config.labels,
        annotations=value.config.annotations,
        mounts=[mount(each) for each in value.mounts],
        log_path=value.log_path,
        resources=pb.ContainerResources(linux=resources(value.resources)),
        image_id=value.image_id,
        user=pb.ContainerUser(linux=user),
        stop_signal=cri_signal(value.stop_signal),  # type: ignore[arg-type]
    )


def container_metadata(value: Container) -> pb.ContainerMetadata:
    return pb.ContainerMetadata(name=value.config.name, attempt=value.config.attempt)


def image_spec(value: ImageSpec) -> pb.ImageSpec:
    """The image as people call it: what the pod's author wrote, where the client told."""
    return pb.ImageSpec(
        image=value.as_written,
        annotations=value.annotations,
        user_specified_image=value.user_specified_image,
        runtime_handler=value.runtime_handler,
        image_ref=value.image_ref,
    )


def mount(value: Mount) -> pb.Mount:
    return pb.Mount(
        container_path=value.container_path,
        host_path=value.host_path,
        readonly=value.readonly,
        selinux_relabel=value.selinux_relabel,
        propagation=_PROPAGATIONS[value.propagation],
        uidMappings=_mappings(value.uid_mappings),
        gidMappings=_mappings(value.gid_mappings),
        recursive_read_only=value.recursive_read_only,
        image=_volume_image(value) if value.image else None,
        image_sub_path=value.image_sub_path,
        mount_options=value.options,
    )


def _volume_image(value: Mount) -> pb.ImageSpec:
    return pb.ImageSpec(image=value.image, user_specified_image=value.user_specified_image, image_ref=value.image_ref)


def resources(value: Resources) -> pb.LinuxContainerResources:
    limits = [pb.HugepageLimit(page_size=each.page_size, limit=each.limit_bytes) for each in value.hugepage_limits]
    return pb.LinuxContainerResources(
        cpu_period=value.cpu_period_us,
        cpu_quota=value.cpu_quota_us,
        cpu_shares=value.cpu_shares,
        memory_limit_in_bytes=value.memory_limit_bytes,
        oom_score_adj=value.oom_score_adj,
        cpuset_cpus=value.cpuset_cpus,
        cpuset_mems=value.cpuset_mems,
        hugepage_limits=limits,
        unified=value.unified,
        memory_swap_limit_in_bytes=value.memory_swap_limit_bytes,
    )


def image(value: Image, *, user: str, pinned: bool) -> pb.Image:
    """An image; `user` is what its config says: `1000`, `name`, either with `:group`, or nothing."""
    message = pb.Image(
        id=value.id,
        repo_tags=value.names,
        repo_digests=value.digests,
        size=max(1, value.size_bytes),
        spec=pb.ImageSpec(image=value.names[0] if value.names else value.id, annotations=value.annotations),
        pinned=pinned,
    )
    name = user.partition(":")[0]
    if name.isascii() and name.isdigit() and len(name) <= 10:
        message.uid.value = int(name)
    else:
        message.username = name
    return message


def fs_usage(mountpoint: str, used_bytes: int, inodes: int, *, at_ns: int) -> pb.FilesystemUsage:
    return pb.FilesystemUsage(
        timestamp=at_ns,
        fs_id=pb.FilesystemIdentifier(mountpoint=mountpoint),
        used_bytes=pb.UInt64Value(value=used_bytes),
        inodes_used=pb.UInt64Value(value=inodes),
    )


def handler(value: HandlerFacts) -> pb.RuntimeHandler:
    able = pb.RuntimeHandlerFeatures(
        recursive_read_only_mounts=value.recursive_read_only_mounts, user_namespaces=value.user_namespaces
    )
    return pb.RuntimeHandler(name=value.name, features=able)


def features(facts: NodeFacts) -> pb.RuntimeFeatures:
    return pb.RuntimeFeatures(
        supplemental_groups_policy=facts.supplemental_groups_policy,
        user_namespaces_host_network=facts.user_namespaces_host_network,
        mount_options=facts.mount_options,
    )


def _mappings(values: Sequence[IdMapping]) -> list[pb.IDMapping]:
    return [pb.IDMapping(host_id=each.host_id, container_id=each.container_id, length=each.length) for each in values]
