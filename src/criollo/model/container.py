"""What a client asked of a container, and what we know of one.

Times are wall-clock nanoseconds since the epoch, 0 until reached. Source of the fields: CRI v1, ContainerConfig.
"""

from enum import StrEnum

from criollo.model.ids import ContainerId, ImageId, PodId
from criollo.model.pod import IdMapping, Namespaces, Record, Resources, SecurityProfile, SELinuxOptions


class Propagation(StrEnum):
    """CRI v1 MountPropagation, as the kernel names it."""

    PRIVATE = "rprivate"
    HOST_TO_CONTAINER = "rslave"
    BIDIRECTIONAL = "rshared"


class Mount(Record, frozen=True, kw_only=True):
    container_path: str
    host_path: str = ""
    readonly: bool = False
    recursive_read_only: bool = False
    selinux_relabel: bool = False
    propagation: Propagation = Propagation.PRIVATE
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    image: str = ""  # an image volume: the reference or id of the image to mount
    image_sub_path: str = ""
    user_specified_image: str = ""  # what the pod's author called it
    image_ref: str = ""  # of the image that is mounted: its first digest reference, else its id
    options: tuple[str, ...] = ()

    @property
    def image_spec(self) -> "ImageSpec":
        """How the client names the image of an image volume."""
        return ImageSpec(image=self.image, user_specified_image=self.user_specified_image)


class Device(Record, frozen=True, kw_only=True):
    """`permissions` is a subset of "rwm"."""

    container_path: str
    host_path: str
    permissions: str = "rwm"


class Capabilities(Record, frozen=True, kw_only=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    add_ambient: tuple[str, ...] = ()


class ContainerSecurity(Record, frozen=True, kw_only=True):
    """CRI v1 LinuxContainerSecurityContext."""

    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    namespaces: Namespaces = Namespaces()
    selinux: SELinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_strict: bool = False
    no_new_privs: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


class ImageSpec(Record, frozen=True, kw_only=True):
    """CRI v1 ImageSpec: what the client called the image."""

    image: str
    annotations: dict[str, str] = {}
    user_specified_image: str = ""
    runtime_handler: str = ""
    image_ref: str = ""

    @property
    def as_written(self) -> str:
        """What the pod's author called it, where the client told; a kubelet asks for an id."""
        return self.user_specified_image or self.image


class ContainerConfig(Record, frozen=True, kw_only=True):
    """CRI v1 ContainerConfig, checked. `env` values are UTF-8: config.json carries nothing else."""

    name: str
    attempt: int = 0
    image: ImageSpec
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    log_path: str = ""  # relative to the pod's log directory
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: ContainerSecurity = ContainerSecurity()
    stop_signal: int = 0  # a number of the CRI's Signal enum; 0: the image's, else SIGTERM


class ContainerState(StrEnum):
    CREATING = "CREATING"
    CREATED = "CREATED"
    RUNNING = "RUNNING"
    EXITED = "EXITED"
    REMOVING = "REMOVING"


class ContainerUser(Record, frozen=True, kw_only=True):
    """Whom the first process runs as."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


class Tuning(Record, frozen=True, kw_only=True):
    """What CPUs that are a container's own are like while it runs; empty: as they are."""

    cpus: str
    isolated: bool = False  # the scheduler moves nothing there
    quiet: str = ""  # of them those that take no interrupts
    latency: str = ""  # as pm_qos_resume_latency_us takes it
    governor: str = ""  # of their frequency


class Container(Record, frozen=True, kw_only=True):
    """A container. Replaced, never changed; the row in state.db is written first.

    `pid_started` and `monitor_started` are start times in clock ticks since boot (/proc/PID/stat, field 22): a
    pid alone may belong to somebody else by now.
    """

    id: ContainerId
    pod_id: PodId
    name: str
    config: ContainerConfig
    handler: str
    state: ContainerState
    created_ns: int
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    pid_started: int = 0
    monitor_pid: int = 0
    monitor_started: int = 0
    image_id: ImageId = ImageId("")
    image_ref: str = ""
    volume_images: tuple[ImageId, ...] = ()  # images and artifacts among its mounts
    log_path: str = ""  # absolute; empty: no log
    stop_signal: int = 15  # a signal number of the kernel
    user: ContainerUser = ContainerUser()
    resources: Resources = Resources()
    updating: Resources | None = None  # its cgroup may have some of them already; repeated after a crash
    shared_cpus: str = ""  # those of the node that it uses besides its own, whatever an update says
    tuning: Tuning | None = None  # what annotations want of the node for its CPUs while it runs
    no_cpu_quota: bool = False  # an annotation freed it and its pod of the CPU quota
    mounts: tuple[Mount, ...] = ()
    privileged: bool = False
    process_label: str = ""  # of SELinux; empty: the runtime's own
    mount_label: str = ""
    notifier: str = ""  # what hears of refused system calls does: "stop" or "tell"; empty: nobody does
    has_poststart: bool = False  # its spec has poststart hooks
    trouble: str = ""  # why the last teardown could not finish; retried by the sweeper

    @property
    def is_running(self) -> bool:
        return self.state is ContainerState.RUNNING
