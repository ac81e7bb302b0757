"""What a client asked of a pod sandbox, and what we know of one.

Times are wall-clock nanoseconds since the epoch. Source of the fields: CRI v1, PodSandboxConfig.
"""

from collections.abc import Sequence
from enum import IntEnum, StrEnum

import msgspec

from criollo.model.ids import PodId


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen value; unknown fields of older or newer documents are ignored."""


class NamespaceMode(IntEnum):
    """CRI v1 NamespaceMode."""

    POD = 0
    CONTAINER = 1
    NODE = 2
    TARGET = 3


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class ProfileType(StrEnum):
    """CRI v1 SecurityProfile.ProfileType."""

    RUNTIME_DEFAULT = "RuntimeDefault"
    UNCONFINED = "Unconfined"
    LOCALHOST = "Localhost"


class SecurityProfile(Record, frozen=True, kw_only=True):
    type: ProfileType
    localhost_ref: str = ""


class SELinuxOptions(Record, frozen=True, kw_only=True):
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class IdMapping(Record, frozen=True, kw_only=True):
    """`length` ids from `container_id` on are `host_id` on the host."""

    host_id: int
    container_id: int
    length: int


def host_id(mappings: Sequence[IdMapping], container_id: int) -> int:
    """The host's id of one inside; that of the namespace's root for an id that is not mapped, 0 without mappings."""
    root = 0
    for each in mappings:
        if each.container_id <= container_id < each.container_id + each.length:
            return each.host_id + container_id - each.container_id
        if each.container_id == 0:
            root = each.host_id
    return root


class UserNamespace(Record, frozen=True, kw_only=True):
    mode: NamespaceMode = NamespaceMode.NODE
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the root inside."""
        return host_id(self.uids, 0), host_id(self.gids, 0)


class Namespaces(Record, frozen=True, kw_only=True):
    """Which namespaces are whose. CRI v1 NamespaceOption; `pid` defaults to the protocol's zero value, POD."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.POD
    ipc: NamespaceMode = NamespaceMode.POD
    target_id: str = ""
    user: UserNamespace | None = None


class PortMapping(Record, frozen=True, kw_only=True):
    protocol: Protocol
    container_port: int
    host_port: int
    host_ip: str = ""


class Dns(Record, frozen=True, kw_only=True):
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class HugepageLimit(Record, frozen=True, kw_only=True):
    """`page_size` as the cgroup file names it: 2MB, 1GB."""

    page_size: str
    limit_bytes: int


class Resources(Record, frozen=True, kw_only=True):
    """CRI v1 LinuxContainerResources; 0 means not given. Times in µs, sizes in bytes."""

    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0
    memory_swap_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: dict[str, str] = {}


class PodSecurity(Record, frozen=True, kw_only=True):
    """CRI v1 LinuxSandboxSecurityContext; it applies to the infra container, the namespaces to all."""

    namespaces: Namespaces = Namespaces()
    selinux: SELinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_strict: bool = False
    privileged: bool = False
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


class PodConfig(Record, frozen=True, kw_only=True):
    """CRI v1 PodSandboxConfig, checked."""

    name: str
    uid: str
    namespace: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: Dns | None = None
    ports: tuple[PortMapping, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    cgroup_parent: str = ""
    sysctls: dict[str, str] = {}
    overhead: Resources | None = None
    resources: Resources | None = None
    security: PodSecurity = PodSecurity()


class Size(Record, frozen=True, kw_only=True):
    """Of a pod: what its containers may use together, and what it costs besides. None stays as it is."""

    overhead: Resources | None = None
    resources: Resources | None = None


class PodState(StrEnum):
    CREATING = "CREATING"
    READY = "READY"
    NOTREADY = "NOTREADY"
    REMOVING = "REMOVING"


class InfraProcess(Record, frozen=True, kw_only=True):
    """The infra container that holds a pod's PID namespace; `container_id` names its bundle and runtime state."""

    container_id: str
    pid: int
    pid_started: int
    monitor_pid: int = 0
    monitor_started: int = 0


class Pod(Record, frozen=True, kw_only=True):
    """A pod sandbox. Replaced, never changed; the row in state.db is written first."""

    id: PodId
    name: str
    config: PodConfig
    handler: str
    state: PodState
    created_ns: int
    hostname: str = ""
    cgroup_parent: str = ""  # as the runtime takes it: a path (cgroupfs) or a slice name (systemd)
    cgroup_made: bool = False  # we made the parent, so it goes with the pod
    updating: Size | None = None  # its cgroup may have some of it already; repeated after a crash
    cgroup_top: str = ""  # the path of the highest that came with it, to go when nothing is in it; empty: none
    namespaces: dict[str, str] = {}  # "net", "ipc", "uts", "user", "pid" → path of the pinned namespace; absent: the host's
    files: dict[str, str] = {}  # "hostname", "hosts", "resolv.conf", "shm" → path on the host; absent: none
    ips: tuple[str, ...] = ()
    network_name: str = ""  # the CNI network that ADD ran with; empty for host network and before ADD
    network_down: bool = False  # DEL has succeeded, or there was nothing to delete
    log_directory: str = ""  # ours, below log_dir, where the client names none; it goes with the pod
    infra: InfraProcess | None = None
    process_label: str = ""  # of SELinux; its level is this pod's alone
    mount_label: str = ""
    trouble: str = ""  # why the last teardown could not finish, retried by the sweeper; of a ready one, what CHECK found

    @property
    def logs(self) -> str:
        """The directory of its containers' logs."""
        return self.config.log_directory or self.log_directory

    @property
    def host_network(self) -> bool:
        return self.config.security.namespaces.network is NamespaceMode.NODE

    @property
    def user_namespace(self) -> UserNamespace | None:
        """What is mapped in the pod's own user namespace; None when it has the host's."""
        user = self.config.security.namespaces.user
        return None if user is None or user.mode is NamespaceMode.NODE else user
