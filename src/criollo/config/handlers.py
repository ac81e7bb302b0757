"""The tables with names of their own: [crio.runtime.runtimes.<handler>] and [crio.runtime.workloads.<name>]."""

from collections.abc import Mapping
from typing import Annotated, Final

from criollo.config.keys import Key, Table, Works
from criollo.config.values import Size

DEFAULT_HANDLER: Final = "crun"
MINIMUM_CREATE_TIMEOUT_S: Final = 30
DEFAULT_CREATE_TIMEOUT_S: Final = 240
LEAST_CPU_TIME_US: Final = 1000  # kernel, kernel/sched/core.c: min_cfs_quota_period, max_cfs_quota_period
LONGEST_CPU_PERIOD_US: Final = 1_000_000
RUNTIME_TYPES: Final = ("oci", "vm", "pod")

_LATER = Works.LATER


class RuntimeHandler(Table, frozen=True, kw_only=True):
    """How pods of one runtime handler run: [crio.runtime.runtimes.<name>]."""

    runtime_path: Annotated[
        str,
        Key("The runtime's program. Empty: the handler's name is looked up in PATH.", absolute=True),
    ] = ""
    runtime_type: Annotated[
        str,
        Key(
            "How the runtime is driven: 'oci' by its command line, 'vm' by shim v2, 'pod' by conmon-rs.", choices=RUNTIME_TYPES
        ),
    ] = "oci"
    runtime_root: Annotated[str, Key("Where the runtime keeps its own state. Empty: /run/<handler>.", absolute=True)] = ""
    runtime_config_path: Annotated[
        str, Key("A configuration file for a runtime of type 'vm'.", works=_LATER, absolute=True)
    ] = ""
    inherit_default_runtime: Annotated[
        bool, Key("Take runtime_path, runtime_type, runtime_config_path and runtime_root from the default handler.")
    ] = False
    privileged_without_host_devices: Annotated[bool, Key("Privileged containers get no devices of the host.")] = False
    allowed_annotations: Annotated[
        tuple[str, ...], Key("Annotations of a pod that may change how its containers run under this handler.")
    ] = ()
    default_annotations: Annotated[
        Mapping[str, str], Key("Annotations for every container of this handler; the pod's own win.")
    ] = {}
    monitor_path: Annotated[str, Key("The monitor's program. Empty: conmon is looked up in PATH.", absolute=True)] = ""
    monitor_cgroup: Annotated[
        str, Key("Where the monitor runs: 'pod' for the pod's cgroup, or a slice (systemd only; empty: system.slice).")
    ] = ""
    monitor_env: Annotated[tuple[str, ...], Key("Environment of the monitor and, through it, of the runtime: NAME=value.")] = (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    monitor_exec_cgroup: Annotated[
        str, Key("Where the runtime's process of an exec runs: '' (with the daemon) or 'container'.", choices=("", "container"))
    ] = ""
    platform_runtime_paths: Annotated[
        Mapping[str, str], Key("Other runtime programs by platform: 'os/architecture' to path.", works=_LATER)
    ] = {}
    runtime_pull_image: Annotated[bool, Key("The runtime pulls the image itself (confidential containers).", works=_LATER)] = (
        False
    )
    container_min_memory: Annotated[Size, Key("The smallest memory limit that a container may ask for.")] = Size(
        12 << 20, "12MiB"
    )
    container_create_timeout: Annotated[
        int, Key(f"Seconds that the creation of a container may take; at least {MINIMUM_CREATE_TIMEOUT_S}. 0: the default.")
    ] = DEFAULT_CREATE_TIMEOUT_S
    no_sync_log: Annotated[
        bool, Key("The monitor does not sync a log file when it rotates or the container exits: faster, and lossy in a crash.")
    ] = False
    stream_websockets: Annotated[bool, Key("conmon-rs serves exec and attach over WebSocket.", works=_LATER)] = False
    exec_cpu_affinity: Annotated[
        str, Key("'first': an exec starts on the first exclusive CPU of its container.", choices=("", "first"))
    ] = ""
    seccomp_profile: Annotated[
        str, Key("The default seccomp profile of this handler. Empty: that of crio.runtime.", absolute=True)
    ] = ""


class Resources(Table, frozen=True, kw_only=True):
    """What a workload gives a container that does not say: [crio.runtime.workloads.<name>.resources]."""

    cpushares: Annotated[int, Key("CPU shares.")] = 0
    cpuquota: Annotated[int, Key("CPU quota in microseconds.")] = 0
    cpuperiod: Annotated[int, Key("CPU period in microseconds.")] = 0
    cpuset: Annotated[str, Key("CPUs, as a Linux CPU list.")] = ""
    cpulimit: Annotated[int, Key("CPU limit in thousandths of a CPU.")] = 0


class Workload(Table, frozen=True, kw_only=True):
    """A way to change resources of pods that carry an annotation: [crio.runtime.workloads.<name>]."""

    activation_annotation: Annotated[str, Key("The pod annotation that switches the workload on.")] = ""
    annotation_prefix: Annotated[
        str, Key("Prefix of the annotations <prefix>/<container>, whose JSON sets resources of single containers.")
    ] = ""
    allowed_annotations: Annotated[tuple[str, ...], Key("Annotations that pods of this workload may use.")] = ()
    resources: Resources = Resources()


def built_in() -> dict[str, RuntimeHandler]:
    """The handlers that are there when no file names any."""
    return {DEFAULT_HANDLER: RuntimeHandler(runtime_root="/run/crun", container_min_memory=Size(500 << 10, "500KiB"))}
