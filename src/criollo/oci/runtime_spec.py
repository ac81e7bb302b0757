"""The OCI runtime spec document (config.json) as frozen values, and its encoding.

Only what Linux containers use. Fields left at their default are not written, except those the spec requires; None and
empty mean "not given", so a number that matters when zero is `int | None`. Runtimes read bytes that `encode` makes;
nothing here decides anything. Source: OCI runtime-spec, config.md and config-linux.md.
"""

from typing import Final

import msgspec

OCI_VERSION: Final = "1.0.2"  # crun before 1.9 refuses everything but 1.0.x; no field below needs a newer one

UNLIMITED: Final = (1 << 64) - 1  # RLIM_INFINITY, linux/resource.h


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A piece of the document; `some_name` is written as `someName`."""


class User(Part, frozen=True, kw_only=True):
    uid: int
    gid: int
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Part, frozen=True, kw_only=True):
    """Five sets of `CAP_*` names; see security.capabilities for who decides them."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Part, frozen=True, kw_only=True):
    """`type` as in RLIMIT_NOFILE."""

    type: str
    hard: int
    soft: int


class Box(Part, frozen=True, kw_only=True):
    height: int
    width: int


class CpuAffinity(Part, frozen=True, kw_only=True):
    initial: str = ""
    final: str = ""


class Process(Part, frozen=True, kw_only=True):
    terminal: bool = False
    console_size: Box | None = None
    user: User
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    selinux_label: str = ""
    exec_cpu_affinity: CpuAffinity | None = msgspec.field(default=None, name="execCPUAffinity")


class Root(Part, frozen=True, kw_only=True):
    path: str
    readonly: bool = False


class IdMapping(Part, frozen=True, kw_only=True):
    """`size` ids from `container_id` on are `host_id` on the host."""

    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(Part, frozen=True, kw_only=True):
    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Hook(Part, frozen=True, kw_only=True):
    """A program of the administrator; `env` is always given, so nothing is inherited."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...]
    timeout: int | None = None


class Hooks(Part, frozen=True, kw_only=True):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()

    def followed_by(self, later: "Hooks") -> "Hooks":
        """Both, stage by stage."""
        return Hooks(**{stage: getattr(self, stage) + getattr(later, stage) for stage in self.__struct_fields__})


class Namespace(Part, frozen=True, kw_only=True):
    """`type`: pid, network, mount, ipc, uts, user, cgroup or time; an empty `path` makes a new one."""

    type: str
    path: str = ""


class Device(Part, frozen=True, kw_only=True):
    """`type`: c, b, u or p."""

    path: str
    type: str
    major: int
    minor: int
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(Part, frozen=True, kw_only=True):
    """A rule of the device cgroup; no type, major or minor means any."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(Part, frozen=True, kw_only=True):
    """Bytes; `swap` is memory and swap together, -1 unlimited."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")
    check_before_update: bool | None = None


class Cpu(Part, frozen=True, kw_only=True):
    """Times in µs."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(Part, frozen=True, kw_only=True):
    limit: int


class HugepageLimit(Part, frozen=True, kw_only=True):
    page_size: str
    limit: int


class WeightDevice(Part, frozen=True, kw_only=True):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Part, frozen=True, kw_only=True):
    major: int
    minor: int
    rate: int


class BlockIo(Part, frozen=True, kw_only=True):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(default=(), name="throttleWriteIOPSDevice")


class Resources(Part, frozen=True, kw_only=True):
    """Also the document that `runtime update -r -` reads."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(default=None, name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: dict[str, str] = {}


class SeccompArg(Part, frozen=True, kw_only=True):
    index: int
    value: int
    value_two: int = 0
    op: str


class Syscall(Part, frozen=True, kw_only=True):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


class Seccomp(Part, frozen=True, kw_only=True):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Syscall, ...] = ()


NO_SECCOMP: Final = msgspec.Raw()  # left out when written: a default is recognised by being the same object


class IntelRdt(Part, frozen=True, kw_only=True):
    clos_id: str = msgspec.field(default="", name="closID")
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] = ()  # since 1.3
    enable_monitoring: bool = False  # since 1.3


class NetDevice(Part, frozen=True, kw_only=True):
    """A network interface of the host that moves into the container's network namespace; since 1.3."""

    name: str = ""


class Linux(Part, frozen=True, kw_only=True):
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    sysctl: dict[str, str] = {}
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: tuple[Namespace, ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp: msgspec.Raw = NO_SECCOMP  # an encoded Seccomp: it is large, and the same for many containers
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    net_devices: dict[str, NetDevice] = {}


class Spec(Part, frozen=True, kw_only=True):
    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None

    @property
    def has_poststart(self) -> bool:
        return self.hooks is not None and bool(self.hooks.poststart)


_ENCODER: Final = msgspec.json.Encoder()


def encode(document: Spec | Process | Resources) -> bytes:
    """The JSON a runtime reads: config.json, the process file of an exec, or the resources of an update."""
    return _ENCODER.encode(document)


def decode(content: bytes) -> Spec:
    """A document that `encode` wrote; unknown fields are ignored.

    Raises:
        msgspec.DecodeError: it is no such document.
    """
    return msgspec.json.decode(content, type=Spec)
