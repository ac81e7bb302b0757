"""What a spec is built from: the request, looked at and made concrete by the caller.

The caller has done all the looking: users are resolved, mount sources probed, devices stat'ed, pod files written. Nothing
here holds a path that still has to be followed; a value that is missing is empty.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from criollo.model.container import ContainerConfig, Mount
from criollo.model.edits import Edits
from criollo.model.pod import IdMapping, PodConfig, Record
from criollo.oci import runtime_spec
from criollo.security import capabilities
from criollo.security.seccomp import Profile
from criollo.specgen.rlimits import Ulimit
from criollo.specgen.users import ResolvedUser


class ImageDefaults(Record, frozen=True, kw_only=True):
    """What an image config says about running it. Source: OCI image-spec, config.md."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()


class SourcePropagation(StrEnum):
    """How the mount that holds a volume source takes part in propagation; a shared slave counts as shared."""

    PRIVATE = "private"
    SLAVE = "slave"
    SHARED = "shared"


class PlannedMount(Record, frozen=True, kw_only=True):
    """A requested mount and what its source is: `source` is the real path on the host, links resolved.

    For an image volume `source` is where the image (or its sub path) is mounted on the host, read-only.
    """

    mount: Mount
    source: str
    propagation: SourcePropagation = SourcePropagation.PRIVATE


class DeviceNode(Record, frozen=True, kw_only=True):
    """A device node of the host and where the container sees it. `type` is c or b; `mode` has permission bits only."""

    path: str
    host_path: str
    type: str
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"


class PodView(Record, frozen=True, kw_only=True):
    """What a container needs to know of its pod.

    `network_ns`, `ipc_ns`, `uts_ns` and `user_ns` are paths of pinned namespaces, empty where the pod uses the host's;
    `pid_ns` is that of the infra container, empty without one. `uids` and `gids` are the pod's mappings. `hosts` is
    empty when the client brings its own; `shm` is /dev/shm for a pod in the host's IPC namespace.
    """

    id: str
    config: PodConfig
    handler: str = ""
    hostname: str = ""
    network_ns: str = ""
    ipc_ns: str = ""
    uts_ns: str = ""
    user_ns: str = ""
    pid_ns: str = ""
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()
    resolv_conf: str = ""
    hostname_file: str = ""
    hosts: str = ""
    shm: str = ""
    container_env: str = ""
    cgroup_parent: str = ""
    ips: tuple[str, ...] = ()


class Confinement(Record, frozen=True, kw_only=True):
    """What `security` has chosen; nothing where the container is unconfined."""

    seccomp: Profile | None = None
    seccomp_listener: str = ""  # a socket where somebody waits to hear of what the filter refuses
    apparmor_profile: str = ""
    process_label: str = ""
    mount_label: str = ""


class Defaults(Record, frozen=True, kw_only=True):
    """What the configuration of the node and of the runtime handler says about every container."""

    capabilities: tuple[str, ...] = capabilities.DEFAULT
    add_inheritable_capabilities: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    env: tuple[str, ...] = ()
    pids_limit: int = 0
    read_only: bool = False
    storage_root: str = ""
    min_memory_bytes: int = 0
    privileged_without_host_devices: bool = False
    annotations: dict[str, str] = {}
    allowed_annotations: tuple[str, ...] = ()
    unsafe_annotations: tuple[str, ...] = ()  # as the runtime names them; a pod's count where they are allowed
    listed_annotations_only: bool = False  # nobody knows which words the runtime takes for its own
    systemd_cgroups: bool = False
    supports_rro: bool = False  # the runtime and the kernel know recursive read-only mounts
    supports_idmap: bool = False  # likewise mounts with id mappings
    supports_net_devices: bool = False  # the runtime moves network interfaces
    runtime: str = ""  # its name and version, for messages
    precompiles_seccomp: bool = False  # the runtime takes a filter as program, and is slow at making one
    repeats_mappings: bool = True  # the runtime wants the mappings of a user namespace that it joins


class SpecRequest(Record, frozen=True, kw_only=True):
    """Everything about one container. `devices` holds the requested and the configured ones, configured first."""

    container_id: str
    container_name: str
    config: ContainerConfig
    pod: PodView
    image: ImageDefaults
    user: ResolvedUser
    rootfs: str
    cgroups_path: str
    image_name: str = ""
    image_id: str = ""
    image_ref: str = ""  # its first digest reference, else its id
    created_ns: int = 0
    log_path: str = ""
    target_pid_ns: str = ""
    is_infra: bool = False  # the infra container of the pod
    mounts: tuple[PlannedMount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    host_devices: tuple[DeviceNode, ...] = ()
    hooks: runtime_spec.Hooks | None = None
    default_mounts: tuple[runtime_spec.Mount, ...] = ()  # of the node; those of the request take their place
    umask: int | None = None
    writable_cgroups: bool = False  # its own ones, on cgroup v2
    edits: Edits | None = None  # of CDI devices
    env_if_unset: tuple[tuple[str, str], ...] = ()  # for names that nobody else sets
    exec_cpu: str = ""  # where commands run in the container start
    block_io: runtime_spec.BlockIo | None = None
    rdt: runtime_spec.IntelRdt | None = None
    confinement: Confinement = Confinement()
    defaults: Defaults = Defaults()

    @property
    def privileged(self) -> bool:
        return self.config.security.privileged

    @property
    def has_user_namespace(self) -> bool:
        return bool(self.pod.user_ns or self.pod.uids)


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A spec, and what a person should be told about it: one sentence each, for the log of the container's creation."""

    spec: runtime_spec.Spec
    notes: tuple[str, ...] = ()


def mappings(entries: Sequence[IdMapping]) -> tuple[runtime_spec.IdMapping, ...]:
    """CRI mappings as the runtime takes them."""
    return tuple(runtime_spec.IdMapping(container_id=e.container_id, host_id=e.host_id, size=e.length) for e in entries)


def is_mapped(entries: Sequence[IdMapping], container_id: int) -> bool:
    """Whether an id exists inside; without mappings every one does."""
    return not entries or any(e.container_id <= container_id < e.container_id + e.length for e in entries)
