"""CRI messages of pods as values of ours, checked; containers are in `read_container`, images in `read_image`.

Every function takes the message and raises Invalid with the name of the field, as the client knows it, that is wrong.
Absent messages are errors where something in them is needed, and defaults elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from criollo.cri import checks
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.model.pod import (
    Dns,
    HugepageLimit,
    IdMapping,
    NamespaceMode,
    Namespaces,
    PodConfig,
    PodSecurity,
    PortMapping,
    ProfileType,
    Protocol,
    Resources,
    SecurityProfile,
    SELinuxOptions,
    UserNamespace,
)

SecurityContext = pb.LinuxContainerSecurityContext | pb.LinuxSandboxSecurityContext

_PROTOCOLS: Final = {pb.TCP: Protocol.TCP, pb.UDP: Protocol.UDP, pb.SCTP: Protocol.SCTP}
_PROFILES: Final = {0: ProfileType.RUNTIME_DEFAULT, 1: ProfileType.UNCONFINED, 2: ProfileType.LOCALHOST}
_NAMED_PROFILES: Final = {
    "runtime/default": ProfileType.RUNTIME_DEFAULT,
    "docker/default": ProfileType.RUNTIME_DEFAULT,
    "unconfined": ProfileType.UNCONFINED,
}
_SYSCTL: Final = re.compile(r"[A-Za-z0-9_./\-]{1,256}")
_CGROUP_FILE: Final = re.compile(r"[a-z0-9_]{1,32}(\.[A-Za-z0-9_]{1,32}){1,3}")
_MAX_GROUPS: Final = 65536  # NGROUPS_MAX of linux/limits.h
_MAX_HOST_ID: Final = (1 << 32) - 1


def pod_config(config: pb.PodSandboxConfig, *, field: str = "config") -> PodConfig:
    """What a pod sandbox shall be."""
    if not config.HasField("metadata"):
        raise Invalid(f"{field}.metadata", None, "name, uid, namespace and attempt of the pod")
    metadata, linux = config.metadata, config.linux
    checks.count(f"{field}.port_mappings", config.port_mappings)
    return PodConfig(
        name=checks.name(f"{field}.metadata.name", metadata.name),
        uid=checks.name(f"{field}.metadata.uid", metadata.uid, required=False),
        namespace=checks.name(f"{field}.metadata.namespace", metadata.namespace, required=False),
        attempt=metadata.attempt,
        hostname=checks.hostname(f"{field}.hostname", config.hostname),
        log_directory=checks.plain_path(f"{field}.log_directory", config.log_directory, required=False),
        dns=_dns(config.dns_config, f"{field}.dns_config") if config.HasField("dns_config") else None,
        ports=tuple(_port(port, f"{field}.port_mappings[{at}]") for at, port in enumerate(config.port_mappings)),
        labels=checks.pairs(f"{field}.labels", config.labels),
        annotations=checks.pairs(f"{field}.annotations", config.annotations),
        cgroup_parent=_cgroup_parent(linux.cgroup_parent, f"{field}.linux.cgroup_parent"),
        sysctls=_sysctls(linux.sysctls, f"{field}.linux.sysctls"),
        overhead=resources(linux.overhead, f"{field}.linux.overhead") if linux.HasField("overhead") else None,
        resources=resources(linux.resources, f"{field}.linux.resources") if linux.HasField("resources") else None,
        security=_pod_security(linux.security_context, f"{field}.linux.security_context"),
    )


def handler_name(value: str) -> str:
    return checks.name("runtime_handler", value, required=False)


def object_id(field: str, value: str) -> str:
    """An id as a client gave it, or its beginning; whether there is such an object is the domain's affair."""
    return checks.text(field, value, limit=checks.NAME_LENGTH, required=True)


def resources(message: pb.LinuxContainerResources, field: str) -> Resources:
    """Limits; 0 and empty mean not given, -1 no limit where the kernel knows that."""
    checks.count(f"{field}.hugepage_limits", message.hugepage_limits, 100)
    return Resources(
        cpu_period_us=checks.number(f"{field}.cpu_period", message.cpu_period, 0, 1_000_000),
        cpu_quota_us=checks.number(f"{field}.cpu_quota", message.cpu_quota, -1),
        cpu_shares=checks.number(f"{field}.cpu_shares", message.cpu_shares, 0, 1 << 30),
        memory_limit_bytes=checks.number(f"{field}.memory_limit_in_bytes", message.memory_limit_in_bytes, -1),
        memory_swap_limit_bytes=checks.number(f"{field}.memory_swap_limit_in_bytes", message.memory_swap_limit_in_bytes, -1),
        oom_score_adj=checks.number(f"{field}.oom_score_adj", message.oom_score_adj, -1000, 1000),
        cpuset_cpus=checks.cpuset(f"{field}.cpuset_cpus", message.cpuset_cpus),
        cpuset_mems=checks.cpuset(f"{field}.cpuset_mems", message.cpuset_mems),
        hugepage_limits=tuple(_hugepages(limit, f"{field}.hugepage_limits") for limit in message.hugepage_limits),
        unified=_unified(message.unified, f"{field}.unified"),
    )


def new_pod_resources(request: pb.UpdatePodSandboxResourcesRequest) -> tuple[Resources | None, Resources | None]:
    """Overhead and resources; None for what is not to change. Raises Invalid when nothing is."""
    overhead = resources(request.overhead, "overhead") if request.HasField("overhead") else None
    of_containers = resources(request.resources, "resources") if request.HasField("resources") else None
    if overhead is None and of_containers is None:
        raise Invalid("overhead, resources", None, "at least one of them")
    return overhead, of_containers


def namespaces(options: pb.NamespaceOption, field: str, *, may_target: bool) -> Namespaces:
    """Whose namespaces. Only containers may have another's PID namespace."""
    two = "POD (0) or NODE (2)"
    checks.one_of(f"{field}.network", options.network, (pb.POD, pb.NODE), two)
    checks.one_of(f"{field}.ipc", options.ipc, (pb.POD, pb.NODE), two)
    if may_target:
        checks.one_of(f"{field}.pid", options.pid, range(4), "POD (0), CONTAINER (1), NODE (2) or TARGET (3)")
    else:
        checks.one_of(f"{field}.pid", options.pid, range(3), "POD (0), CONTAINER (1) or NODE (2)")
    if (options.pid == pb.TARGET) != bool(options.target_id):
        raise Invalid(f"{field}.target_id", options.target_id, "the id of a container with pid mode TARGET, else nothing")
    user = _user_namespace(options.userns_options, f"{field}.userns_options") if options.HasField("userns_options") else None
    return Namespaces(
        network=NamespaceMode(options.network),
        pid=NamespaceMode(options.pid),
        ipc=NamespaceMode(options.ipc),
        target_id=checks.text(f"{field}.target_id", options.target_id, limit=checks.NAME_LENGTH),
        user=user,
    )


def id_mapping(message: pb.IDMapping, field: str) -> IdMapping:
    checks.number(f"{field}.length", message.length, 1, _MAX_HOST_ID)
    for name in ("host_id", "container_id"):
        checks.number(f"{field}.{name} + length", getattr(message, name) + message.length, 1, _MAX_HOST_ID)
    return IdMapping(host_id=message.host_id, container_id=message.container_id, length=message.length)


def profile(message: SecurityContext, kind: str, old_field: str, field: str) -> SecurityProfile | None:
    """The seccomp or AppArmor profile: the message `kind`, else the deprecated string of `old_field`; None if neither."""
    if not message.HasField(kind):
        return _named_profile(getattr(message, old_field, ""), f"{field}.{old_field}", may_be_bare=kind == "apparmor")
    given: pb.SecurityProfile = getattr(message, kind)
    checks.one_of(f"{field}.{kind}.profile_type", given.profile_type, _PROFILES, "RuntimeDefault, Unconfined or Localhost")
    is_local = _PROFILES[given.profile_type] is ProfileType.LOCALHOST
    if is_local != bool(given.localhost_ref):
        raise Invalid(
            f"{field}.{kind}.localhost_ref", given.localhost_ref, "a profile's name with type Localhost, else nothing"
        )
    ref = _local(given.localhost_ref, f"{field}.{kind}")
    if kind == "apparmor":  # some clients put here what the old field wants; seccomp's is a path
        ref = ref.removeprefix("localhost/") or ref
    return SecurityProfile(type=_PROFILES[given.profile_type], localhost_ref=ref)


def optional_selinux(context: SecurityContext, field: str) -> SELinuxOptions | None:
    """The parts of a label; None if not given."""
    if not context.HasField("selinux_options"):
        return None
    options, field = context.selinux_options, f"{field}.selinux_options"
    parts = {
        name: checks.text(f"{field}.{name}", getattr(options, name), limit=256) for name in ("user", "role", "type", "level")
    }
    for name, value in parts.items():
        if name != "level" and ":" in value:
            raise Invalid(f"{field}.{name}", value, "one part of a label, without ':'")
    return SELinuxOptions(**parts)


def groups(values: Sequence[int], field: str) -> tuple[int, ...]:
    checks.count(field, values, _MAX_GROUPS)
    return tuple(checks.user_id(f"{field}[{at}]", value) for at, value in enumerate(values))


def is_strict(policy: int, field: str) -> bool:
    checks.one_of(field, policy, (pb.Merge, pb.Strict), "Merge (0) or Strict (1)")
    return policy == pb.Strict


def optional_id(message: SecurityContext, name: str, field: str) -> int | None:
    """`run_as_user` or `run_as_group`, None if not given."""
    if not message.HasField(name):
        return None
    return checks.user_id(f"{field}.{name}", getattr(message, name).value)


def _pod_security(context: pb.LinuxSandboxSecurityContext, field: str) -> PodSecurity:
    user, group = (optional_id(context, name, field) for name in ("run_as_user", "run_as_group"))
    if group is not None and user is None:
        raise Invalid(f"{field}.run_as_group", group, "run_as_user too: a group alone names nobody")
    return PodSecurity(
        namespaces=namespaces(context.namespace_options, f"{field}.namespace_options", may_target=False),
        selinux=optional_selinux(context, field),
        run_as_user=user,
        run_as_group=group,
        readonly_rootfs=context.readonly_rootfs,
        supplemental_groups=groups(context.supplemental_groups, f"{field}.supplemental_groups"),
        supplemental_groups_strict=is_strict(context.supplemental_groups_policy, f"{field}.supplemental_groups_policy"),
        privileged=context.privileged,
        seccomp=profile(context, "seccomp", "seccomp_profile_path", field),
        apparmor=profile(context, "apparmor", "", field),
    )


def _user_namespace(options: pb.UserNamespace, field: str) -> UserNamespace:
    checks.one_of(f"{field}.mode", options.mode, (pb.POD, pb.NODE), "POD (0) or NODE (2)")
    if options.mode == pb.NODE:
        return UserNamespace(mode=NamespaceMode.NODE)
    mapped: dict[str, tuple[IdMapping, ...]] = {}
    for name in ("uids", "gids"):
        given = getattr(options, name)
        if len(given) != 1:
            raise Invalid(f"{field}.{name}", f"{len(given)} mappings", "exactly one mapping with mode POD")
        mapped[name] = (id_mapping(given[0], f"{field}.{name}[0]"),)
        checks.number(f"{field}.{name}[0].container_id", given[0].container_id, 0, 0)
    return UserNamespace(mode=NamespaceMode.POD, uids=mapped["uids"], gids=mapped["gids"])


def _named_profile(text: str, field: str, *, may_be_bare: bool) -> SecurityProfile | None:
    """`may_be_bare`: a profile may go without `localhost/`, as with CRI-O."""
    if not text:
        return None
    if text in _NAMED_PROFILES:
        return SecurityProfile(type=_NAMED_PROFILES[text])
    if text.startswith("localhost/") and text != "localhost/":
        return SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref=_local(text.removeprefix("localhost/"), field))
    if may_be_bare and text != "localhost/":
        return SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref=_local(text, field))
    raise Invalid(field, text, "runtime/default, unconfined or localhost/PROFILE")


def _local(ref: str, field: str) -> str:
    checks.text(f"{field}.localhost_ref", ref, limit=checks.PATH_LENGTH)
    if ".." in ref.split("/"):
        raise Invalid(f"{field}.localhost_ref", ref, "a profile without '..' in its path")
    return ref


def _dns(config: pb.DNSConfig, field: str) -> Dns:
    for name in ("servers", "searches", "options"):
        checks.count(f"{field}.{name}", getattr(config, name), 100)
    return Dns(
        servers=tuple(checks.address(f"{field}.servers[{at}]", server) for at, server in enumerate(config.servers)),
        searches=checks.all_text(f"{field}.searches", config.searches, limit=256),
        options=checks.all_text(f"{field}.options", config.options, limit=256),
    )


def _port(port: pb.PortMapping, field: str) -> PortMapping:
    checks.one_of(f"{field}.protocol", port.protocol, _PROTOCOLS, "TCP (0), UDP (1) or SCTP (2)")
    return PortMapping(
        protocol=_PROTOCOLS[port.protocol],
        container_port=checks.number(f"{field}.container_port", port.container_port, 1, 65535),
        host_port=checks.number(f"{field}.host_port", port.host_port, 0, 65535),
        host_ip=checks.address(f"{field}.host_ip", port.host_ip),
    )


def _cgroup_parent(value: str, field: str) -> str:
    checks.text(field, value, limit=checks.PATH_LENGTH)
    if ".." in value.split("/"):
        raise Invalid(field, value, "a cgroup without '..'")
    return value


def _sysctls(values: Mapping[str, str], field: str) -> dict[str, str]:
    found = checks.pairs(field, values)
    for name, value in found.items():
        checks.text(f"{field}[{name}]", value)
        if not _SYSCTL.fullmatch(name) or ".." in name:
            raise Invalid(f"{field} key", name, "the name of a sysctl")
    return found


def _hugepages(limit: pb.HugepageLimit, field: str) -> HugepageLimit:
    size, unit = limit.page_size[:-2], limit.page_size[-2:]
    if not (size.isascii() and size.isdigit() and len(size) < 6 and unit in ("KB", "MB", "GB")):
        raise Invalid(f"{field}.page_size", limit.page_size, "a size like 2MB or 1GB")
    return HugepageLimit(page_size=limit.page_size, limit_bytes=checks.number(f"{field}.limit", limit.limit, 0, (1 << 64) - 1))


def _unified(values: Mapping[str, str], field: str) -> dict[str, str]:
    found = checks.pairs(field, values)
    for name in found:
        if not _CGROUP_FILE.fullmatch(name):
            raise Invalid(f"{field} key", name, "the name of a file of cgroup v2, like memory.high")
    return found
