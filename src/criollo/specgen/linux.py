"""The Linux part of a spec: namespaces, id mappings, devices, masked and read-only paths.

Network, IPC and UTS namespaces are the pod's, whatever the container's own options say: a container cannot leave its pod.
Sysctls are not here: they were set when the pod's namespaces were made.
Source: OCI runtime-spec, config-linux.md; CRI v1, NamespaceOption, LinuxContainerSecurityContext.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from criollo.errors import Invalid, WrongState
from criollo.model.container import Device
from criollo.model.pod import NamespaceMode
from criollo.oci import runtime_spec
from criollo.specgen import paths, resources
from criollo.specgen.host import HostFacts
from criollo.specgen.request import DeviceNode, SpecRequest, mappings

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

_DENY_ALL: Final = runtime_spec.DeviceRule(allow=False, access="rwm")
_ALLOW_ALL: Final = runtime_spec.DeviceRule(allow=True, access="rwm")
_PERMISSIONS: Final = frozenset("rwm")
_DEVICE_OPTIONS: Final = ("bind", "rprivate", "nosuid", "noexec", "rw")
_EVERYWHERE: Final = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console")
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
    nodes, rules = devices(request)
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


def devices(request: SpecRequest) -> tuple[tuple[runtime_spec.Device, ...], tuple[runtime_spec.DeviceRule, ...]]:
    """Nodes to make, and the rules of the device cgroup: nothing is allowed except what is listed after that.

    Runtimes add null, zero, full, random, urandom, tty, ptmx and the terminals themselves. No node is made in a user
    namespace: `device_mounts` shows those of the host.

    Raises:
        Invalid: a malformed node, or one that would hide a host device in a privileged container.
    """
    nodes = _chosen(request)
    made = tuple(_node(node) for node in nodes)
    rules = (_ALLOW_ALL,) if _has_host_devices(request) else (_DENY_ALL, *(_rule(node) for node in nodes))
    return () if request.has_user_namespace else made, rules


def device_mounts(request: SpecRequest) -> list[runtime_spec.Mount]:
    """The host's own nodes, bound into a container in a user namespace, which cannot make any.

    Some runtimes would make new ones that belong to the root inside, also for devices that the host's users may not touch;
    others bind, but only at the same path. A node that is bound keeps the host's owner and mode.
    """
    if not request.has_user_namespace:
        return []
    return [
        runtime_spec.Mount(destination=node.path, type="bind", source=node.host_path, options=_DEVICE_OPTIONS)
        for node in _chosen(request)
        if node.path not in _EVERYWHERE
    ]


def placed(device: Device, found: Iterable[DeviceNode]) -> tuple[DeviceNode, ...]:
    """Where the nodes found at or below a requested `host_path` go in the container, with the requested permissions.

    Raises:
        Invalid: a path or permissions that cannot be, or no device there.
    """
    base = paths.check_absolute(device.host_path, "devices.host_path")
    target = paths.check_absolute(device.container_path or device.host_path, "devices.container_path")
    permissions = _permissions(device.permissions)
    nodes = []
    for node in found:
        if not paths.is_at_or_below(node.host_path, base):
            raise Invalid("devices.host_path", node.host_path, f"a path at or below {base}")
        nodes.append(
            DeviceNode(
                path=target + node.host_path[len(base) :],
                host_path=node.host_path,
                type=node.type,
                major=node.major,
                minor=node.minor,
                mode=node.mode,
                uid=node.uid,
                gid=node.gid,
                permissions=permissions,
            )
        )
    if not nodes:
        raise Invalid("devices.host_path", device.host_path, "a device node, or a directory with some")
    return tuple(nodes)


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


def _has_host_devices(request: SpecRequest) -> bool:
    return request.privileged and not request.defaults.privileged_without_host_devices


def _chosen(request: SpecRequest) -> list[DeviceNode]:
    """A later node at the same path takes the place of an earlier one."""
    if not _has_host_devices(request):
        return _by_path(request.devices)
    taken = {node.path for node in request.host_devices}
    for node in request.devices:
        if node.path != node.host_path and node.path in taken:
            raise Invalid("devices.container_path", node.path, "a path no host device has, in a privileged container")
    return _by_path((*request.host_devices, *request.devices))


def _by_path(nodes: Iterable[DeviceNode]) -> list[DeviceNode]:
    return list({paths.check_absolute(node.path, "devices.container_path"): node for node in nodes}.values())


def _node(node: DeviceNode) -> runtime_spec.Device:
    if node.type not in ("c", "b"):
        raise Invalid("devices.host_path", node.host_path, "a character or block device")
    if any(paths.is_at_or_below(node.path, top) for top in ("/proc", "/sys")):
        raise Invalid("devices.container_path", node.path, "a path outside /proc and /sys")
    return runtime_spec.Device(
        path=node.path,
        type=node.type,
        major=node.major,
        minor=node.minor,
        file_mode=node.mode,
        uid=node.uid,
        gid=node.gid,
    )


def _rule(node: DeviceNode) -> runtime_spec.DeviceRule:
    return runtime_spec.DeviceRule(
        allow=True, type=node.type, major=node.major, minor=node.minor, access=_permissions(node.permissions)
    )


def _permissions(text: str) -> str:
    if not set(text) <= _PERMISSIONS or len(set(text)) != len(text):
        raise Invalid("devices.permissions", text, "letters of rwm, each once")
    return text or "rwm"


def _cleaned(asked: tuple[str, ...], field: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths.check_absolute(path, field) for path in asked))
