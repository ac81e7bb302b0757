"""The Linux part of a spec: namespaces, id mappings, masked and read-only paths; devices and limits have modules of their own.

Network, IPC and UTS namespaces are the pod's, whatever the container's own options say: a container cannot leave its pod.
Sysctls are not here: they were set when the pod's namespaces were made.
Source: OCI runtime-spec, config-linux.md; CRI v1, NamespaceOption, LinuxContainerSecurityContext.
"""

from typing import Final

import msgspec

from criollo.errors import WrongState
from criollo.model.pod import NamespaceMode
from criollo.oci import runtime_spec
from criollo.specgen import devices, paths, resources
from criollo.specgen.host import HostFacts
from criollo.specgen.request import SpecRequest, mappings

# Places of /proc and /sys that tell of the host or of other tenants. runtime-tools and containers/common mask the same;
# powercap and thermal counters since GHSA-7ww5-4wqc-m92c.
MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)


def linux(
    request: SpecRequest, host: HostFacts, rootfs_propagation: str, *, seccomp: msgspec.Raw = runtime_spec.NO_SECCOMP
) -> runtime_spec.Linux:
    """Everything that only Linux has.

    Raises:
        Invalid: values that contradict each other or the host.
        WrongState: the pod lacks a namespace that the container is to join.
    """
    limits = resources.limits(request.config.resources, host=host, min_memory_bytes=request.defaults.min_memory_bytes)
    nodes, rules = devices.devices(request)
    security = request.config.security
    repeated = request.defaults.repeats_mappings or not request.pod.user_ns
    return runtime_spec.Linux(
        uid_mappings=mappings(request.pod.uids) if repeated else (),
        gid_mappings=mappings(request.pod.gids) if repeated else (),
        resources=runtime_spec.Resources(
            devices=rules,
            memory=limits.memory,
            cpu=limits.cpu,
            pids=resources.pids(request.defaults.pids_limit, host),
            block_io=request.block_io,
            hugepage_limits=limits.hugepage_limits,
            unified=limits.unified,
        ),
        cgroups_path=request.cgroups_path,
        namespaces=namespaces(request, host),
        devices=nodes,
        seccomp=seccomp,
        rootfs_propagation=rootfs_propagation,
        masked_paths=() if request.privileged else masked_paths(security.masked_paths, host),
        readonly_paths=() if request.privileged else _cleaned(security.readonly_paths, "readonly_paths"),
        mount_label=request.confinement.mount_label,
        intel_rdt=request.rdt,
    )


def namespaces(request: SpecRequest, host: HostFacts) -> tuple[runtime_spec.Namespace, ...]:
    """Which namespaces are new, which are joined; one that is absent is the host's.

    Raises:
        WrongState: the pod or target has no such namespace to join.
    """
    pod, shared = request.pod, request.pod.config.security.namespaces
    found = [runtime_spec.Namespace(type="mount")]
    if shared.network is not NamespaceMode.NODE:
        found.append(_joined("network", pod.network_ns, request))
    if shared.ipc is not NamespaceMode.NODE:
        found.append(_joined("ipc", pod.ipc_ns, request))
    if pod.uts_ns:
        found.append(_joined("uts", pod.uts_ns, request))
    match request.config.security.namespaces.pid:
        case NamespaceMode.CONTAINER:
            found.append(runtime_spec.Namespace(type="pid"))
        case NamespaceMode.POD:
            found.append(_joined("pid", pod.pid_ns, request))
        case NamespaceMode.TARGET:
            found.append(_joined("pid", request.target_pid_ns, request))
        case NamespaceMode.NODE:
            pass
    if request.has_user_namespace:
        found.append(runtime_spec.Namespace(type="user", path=pod.user_ns))
    if host.cgroup_v2 and not request.privileged:
        found.append(runtime_spec.Namespace(type="cgroup"))
    return tuple(found)


def masked_paths(asked: tuple[str, ...], host: HostFacts) -> tuple[str, ...]:
    """The request's, and ours on top as soon as it masks anything; a request that masks nothing gets nothing masked."""
    if not asked:
        return ()
    return tuple(dict.fromkeys((*_cleaned(asked, "masked_paths"), *MASKED, *host.thermal_paths)))


def _joined(kind: str, path: str, request: SpecRequest) -> runtime_spec.Namespace:
    if not path:
        needs = f"one with a {kind} namespace that container {request.container_name} can join"
        raise WrongState("pod", request.pod.id, f"without a {kind} namespace of its own", needs)
    return runtime_spec.Namespace(type=kind, path=paths.check_absolute(path, f"{kind} namespace"))


def _cleaned(asked: tuple[str, ...], field: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths.check_absolute(path, field) for path in asked))
