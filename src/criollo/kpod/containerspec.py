"""One container of a manifest as the message that creates it. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.kpod import quantities
from criollo.kpod.confinement import confine
from criollo.kpod.expansion import expand
from criollo.kpod.manifest import Amounts, Container, Pod, Spec, Variable, VolumeMount

# What kubelet asks for with procMount Default: places of /proc and /sys that tell of the host, or change it.
MASKED: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PROPAGATIONS: Final = {
    "None": pb.PROPAGATION_PRIVATE,
    "HostToContainer": pb.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}
_VARIABLE: Final = re.compile(r"[^=\0]+")


class Configured(NamedTuple):
    """A message, and what it leaves out."""

    message: pb.ContainerConfig
    warnings: tuple[str, ...]


def container_config(pod: Pod, container: Container, place: str, *, uid: str, volumes: Mapping[str, str | None]) -> Configured:
    """The message for a container; `volumes` maps names to paths on the host, None for a kind that is not supported.

    The image is as the manifest names it; the caller puts the id in its place once it is known.

    Raises:
        Invalid: a value that cannot be; the message has its path, which begins with `place`.
    """
    variables, warnings = _environment(pod, container, place, uid)
    mounts = list(_mounts(container, place, volumes, warnings))
    message = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=container.name),
        image=pb.ImageSpec(image=container.image, user_specified_image=container.image),
        command=[expand(word, variables) for word in container.command],
        args=[expand(word, variables) for word in container.args],
        working_dir=container.working_dir,
        envs=[pb.KeyValue(key=name, value=value.encode()) for name, value in variables.items()],
        mounts=mounts,
        labels={**pod_labels(pod, uid), "io.kubernetes.container.name": container.name},
        log_path=f"{container.name}/0.log",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
    )
    message.linux.security_context.CopyFrom(_security(pod, container, place))
    message.linux.resources.CopyFrom(_resources(container, place))
    return Configured(message, tuple(warnings))


def namespaces(spec: Spec) -> pb.NamespaceOption:
    """Whose namespaces the pod and each of its containers use."""
    shared = pb.POD if spec.share_process_namespace else pb.CONTAINER
    return pb.NamespaceOption(
        network=pb.NODE if spec.host_network else pb.POD,
        pid=pb.NODE if spec.host_pid else shared,
        ipc=pb.NODE if spec.host_ipc else pb.POD,
    )


def pod_labels(pod: Pod, uid: str) -> dict[str, str]:
    """The labels by which node tools know a pod."""
    return {
        "io.kubernetes.pod.name": pod.metadata.name,
        "io.kubernetes.pod.namespace": pod.metadata.namespace,
        "io.kubernetes.pod.uid": uid,
    }


def _environment(pod: Pod, container: Container, place: str, uid: str) -> tuple[dict[str, str], list[str]]:
    """Variables in order, each expanded with those before it; and a line for each that has no value here."""
    fields = {"metadata.name": pod.metadata.name, "metadata.namespace": pod.metadata.namespace, "metadata.uid": uid}
    variables: dict[str, str] = {}
    warnings: list[str] = []
    for index, variable in enumerate(container.env):
        where = f"{place}.env[{index}]"
        if not _VARIABLE.fullmatch(variable.name):
            raise Invalid(f"{where}.name", variable.name, "a name without '='")
        value = _value(variable, where, fields)
        if value is None:
            warnings.append(f"{where}.valueFrom is not supported: {variable.name} is left out")
        elif "\0" in value:
            raise Invalid(f"{where}.value", value, "text without NUL")
        else:
            variables[variable.name] = expand(value, variables)
    return variables, warnings


def _value(variable: Variable, where: str, fields: Mapping[str, str]) -> str | None:
    if variable.value_from is None:
        return variable.value or ""
    if variable.value:
        raise Invalid(where, "value and valueFrom", "one of them")
    reference = variable.value_from.field_ref
    return fields.get(reference.field_path) if reference is not None else None


def _mounts(container: Container, place: str, volumes: Mapping[str, str | None], warnings: list[str]) -> Iterator[pb.Mount]:
    for index, mount in enumerate(container.volume_mounts):
        where = f"{place}.volumeMounts[{index}]"
        _check_mount(mount, where, volumes)
        source = volumes[mount.name]
        if source is None:
            warnings.append(
                f"{where}: the kind of volume {mount.name} is not supported: nothing is mounted at {mount.mount_path}"
            )
            continue
        yield pb.Mount(
            container_path=mount.mount_path,
            host_path=source,
            readonly=mount.read_only,
            propagation=_PROPAGATIONS[mount.mount_propagation],
        )


def _check_mount(mount: VolumeMount, where: str, volumes: Mapping[str, str | None]) -> None:
    if mount.name not in volumes:
        raise Invalid(f"{where}.name", mount.name, "the name of a volume in spec.volumes")
    if not mount.mount_path.startswith("/"):
        raise Invalid(f"{where}.mountPath", mount.mount_path, "an absolute path")
    if mount.mount_propagation not in _PROPAGATIONS:
        raise Invalid(f"{where}.mountPropagation", mount.mount_propagation, " or ".join(_PROPAGATIONS))
    for field, value in (("subPath", mount.sub_path), ("subPathExpr", mount.sub_path_expr)):
        if value:
            raise Invalid(
                f"{where}.{field}", value, "nothing: parts of a volume cannot be mounted yet; name the directory itself"
            )


def _security(pod: Pod, container: Container, place: str) -> pb.LinuxContainerSecurityContext:
    common, own = pod.spec.security_context, container.security_context
    message = pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(add_capabilities=own.capabilities.add, drop_capabilities=own.capabilities.drop),
        privileged=own.privileged,
        namespace_options=namespaces(pod.spec),
        readonly_rootfs=own.read_only_root_filesystem,
        supplemental_groups=common.supplemental_groups,
        no_new_privs=not own.allow_privilege_escalation,
        masked_paths=() if own.privileged else MASKED,
        readonly_paths=() if own.privileged else READ_ONLY,
    )
    if own.privileged and not own.allow_privilege_escalation:
        raise Invalid(f"{place}.securityContext.allowPrivilegeEscalation", False, "true for a privileged container")
    user = common.run_as_user if own.run_as_user is None else own.run_as_user
    group = common.run_as_group if own.run_as_group is None else own.run_as_group
    if user is not None:
        message.run_as_user.value = user
    if group is not None:
        message.run_as_group.value = group
    confine(message, common, own, place)
    return message


def _resources(container: Container, place: str) -> pb.LinuxContainerResources:
    limits, requests = container.resources.limits, container.resources.requests
    message = pb.LinuxContainerResources()
    limit = _milli(limits, f"{place}.resources.limits.cpu")
    request = _milli(requests, f"{place}.resources.requests.cpu")
    wanted = limit if request is None else request
    if wanted is not None:
        message.cpu_shares = quantities.shares(wanted)
    if limit:
        message.cpu_quota = quantities.quota_us(limit)
        message.cpu_period = quantities.CPU_PERIOD_US
    if limits.memory is not None:
        message.memory_limit_in_bytes = quantities.whole_bytes(limits.memory, f"{place}.resources.limits.memory")
    if requests.memory is not None:  # nothing to reserve on one node, but wrong is wrong
        quantities.whole_bytes(requests.memory, f"{place}.resources.requests.memory")
    return message


def _milli(amounts: Amounts, field: str) -> int | None:
    return None if amounts.cpu is None else quantities.milli_cpus(amounts.cpu, field)
