"""The table [crio.runtime]: how containers run."""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from criollo.config.handlers import DEFAULT_HANDLER, RuntimeHandler, Workload, built_in
from criollo.config.keys import Key, Table, Works

LOG_LEVELS: Final = ("fatal", "panic", "error", "warn", "warning", "info", "debug", "trace")
MINIMUM_STOP_TIMEOUT_S: Final = 30
MINIMUM_LOG_SIZE_BYTES: Final = 8192  # conmon's read buffer

_LATER = Works.LATER
_USERNS = "user namespaces of Kubernetes (KEP-127)"


class Runtime(Table, frozen=True, kw_only=True):
    """How containers run: [crio.runtime]."""

    default_runtime: Annotated[str, Key("The handler of pods that name none.")] = DEFAULT_HANDLER
    runtimes: Annotated[Mapping[str, RuntimeHandler], Key("The runtime handlers.")] = msgspec.field(default_factory=built_in)
    workloads: Annotated[Mapping[str, Workload], Key("The workloads.")] = msgspec.field(default_factory=dict[str, Workload])

    cgroup_manager: Annotated[
        str, Key("Who makes cgroups. Default: systemd where it runs, else cgroupfs.", choices=("systemd", "cgroupfs"))
    ] = "systemd"
    conmon: Annotated[
        str, Key("The monitor's program, for all handlers.", absolute=True, deprecated="monitor_path of a handler")
    ] = ""
    conmon_cgroup: Annotated[str, Key("Where monitors run, for all handlers.", deprecated="monitor_cgroup of a handler")] = ""
    conmon_env: Annotated[
        tuple[str, ...], Key("Environment of the monitor, for all handlers.", deprecated="monitor_env of a handler")
    ] = ()
    namespaces_dir: Annotated[str, Key("Pinned namespaces stand below it: netns/<id>, ipcns/<id>, ...", absolute=True)] = "/run"
    pinns_path: Annotated[
        str, Key("A program of CRI-O that pins namespaces; here the daemon does it.", works=Works.IGNORED)
    ] = ""
    container_exits_dir: Annotated[
        str, Key("The monitor writes the exit codes of containers here.", absolute=True, env="CONTAINER_EXITS_DIR")
    ] = "/run/criollo/exits"
    container_attach_socket_dir: Annotated[
        str, Key("The monitor's attach sockets stand below it.", absolute=True, env="CONTAINER_ATTACH_SOCKET_DIR")
    ] = "/run/criollo/attach"
    drop_infra_ctr: Annotated[
        bool, Key("Pods get no infra container unless they share their PID namespace or the handler needs one.")
    ] = True
    infra_ctr_cpuset: Annotated[str, Key("CPUs of infra containers and monitors, as a Linux CPU list.")] = ""
    shared_cpuset: Annotated[str, Key("CPUs that containers with exclusive CPUs may share when asked.")] = ""
    ctr_stop_timeout: Annotated[
        int,
        Key(
            f"Seconds to wait for a container to end; at least {MINIMUM_STOP_TIMEOUT_S}. Each stop names its own time, so"
            " nothing is left for this one, in CRI-O's server neither.",
            works=Works.IGNORED,
            env="CONTAINER_STOP_TIMEOUT",
        ),
    ] = 30

    default_capabilities: Annotated[
        tuple[str, ...], Key("Capabilities of containers that ask for no others.")
    ] = (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "KILL",
    )  # fmt: skip
    add_inheritable_capabilities: Annotated[
        bool, Key("Capabilities are inheritable as well, so that they survive the exec of a non-root user.")
    ] = False
    default_sysctls: Annotated[
        tuple[str, ...], Key("Sysctls of every pod that has the namespace: name=value, without spaces around '='.")
    ] = ()
    default_ulimits: Annotated[
        tuple[str, ...], Key("Resource limits of containers: name=soft:hard, for example nofile=1024:2048.")
    ] = ()
    default_env: Annotated[tuple[str, ...], Key("Environment of every container, NAME=value; image and pod win.")] = ()
    min_injected_gomaxprocs: Annotated[
        int,
        Key(
            "Least GOMAXPROCS put into containers without exclusive CPUs; 0: none.",
            env="CONTAINER_INJECT_GOMAXPROCS",
        ),
    ] = 0
    pids_limit: Annotated[
        int, Key("Most processes of a container; -1: no limit.", deprecated="kubelet's --pod-pids-limit")
    ] = -1
    read_only: Annotated[
        bool, Key("Unprivileged containers get a read-only root filesystem, with a tmpfs on /run, /tmp and /var/tmp.")
    ] = False
    allowed_devices: Annotated[tuple[str, ...], Key("Devices that a pod may ask for by the annotation devices.crio.io.")] = (
        "/dev/fuse",
        "/dev/net/tun",
    )
    additional_devices: Annotated[tuple[str, ...], Key("Devices of every container: host path[:container path][:rwm].")] = ()
    device_ownership_from_security_context: Annotated[
        bool, Key("Devices belong to the user and group that the container's security context names.")
    ] = False
    cdi_spec_dirs: Annotated[tuple[str, ...], Key("Directories of CDI device specs; later ones win.")] = (
        "/etc/cdi",
        "/var/run/cdi",
    )
    hooks_dir: Annotated[tuple[str, ...], Key("Directories of OCI hook files; later ones win.")] = (
        "/usr/share/containers/oci/hooks.d",
    )
    default_mounts: Annotated[tuple[str, ...], Key("Mounts of every container.", works=Works.DEAD, flag="")] = ()
    default_mounts_file: Annotated[
        str, Key("A file of mounts for every container, one /source:/target per line.", absolute=True)
    ] = ""
    absent_mount_sources_to_reject: Annotated[
        tuple[str, ...], Key("Paths that are not created when a mount names them and they do not exist: the container fails.")
    ] = ()
    bind_mount_prefix: Annotated[
        str, Key("Put before the source of every bind mount, for a daemon that runs in a container.", absolute=True)
    ] = ""
    timezone: Annotated[
        str,
        Key("Time zone of containers: a name, 'Local' for the host's, empty for none.", env="CONTAINER_TIME_ZONE"),
    ] = ""
    no_pivot: Annotated[bool, Key("The runtime moves its root mount instead of pivot_root.")] = False

    log_level: Annotated[str, Key("The least severe log lines that are written.", choices=LOG_LEVELS, short="l")] = "info"
    log_filter: Annotated[str, Key("Only log lines in which this regular expression matches something; empty: all.")] = ""
    log_size_max: Annotated[
        int,
        Key(
            f"Largest container log in bytes, at least {MINIMUM_LOG_SIZE_BYTES}; negative: no limit.",
            deprecated="kubelet's containerLogMaxSize",
        ),
    ] = -1
    log_to_journald: Annotated[
        bool, Key("Container output goes to the journal as well.", works=_LATER, flag="log-journald")
    ] = False

    selinux: Annotated[bool, Key("Label containers for SELinux. Default: on where the node has it.")] = False
    hostnetwork_disable_selinux: Annotated[bool, Key("Pods in the host's network are not confined by SELinux.")] = True
    seccomp_profile: Annotated[
        str, Key("The default seccomp profile. Empty, or not there: the built-in one.", absolute=True)
    ] = ""
    privileged_seccomp_profile: Annotated[
        str, Key("Seccomp profile of privileged containers. Empty: they have none.", absolute=True)
    ] = ""
    apparmor_profile: Annotated[
        str,
        Key("AppArmor profile of containers that ask for no other: crio-default (ours), one that is loaded, or 'unconfined'."),
    ] = "crio-default"
    blockio_config_file: Annotated[str, Key("Classes of block I/O.", absolute=True)] = ""
    blockio_reload: Annotated[bool, Key("Read the block I/O classes anew for each container.")] = False
    rdt_config_file: Annotated[str, Key("Classes of cache and memory bandwidth.", absolute=True)] = ""
    irqbalance_config_file: Annotated[str, Key("The configuration of the irqbalance service.", absolute=True)] = (
        "/etc/sysconfig/irqbalance"
    )
    irqbalance_config_restore_file: Annotated[
        str, Key("CPUs banned for interrupts are restored from here at start; 'disable': not.")
    ] = "/etc/sysconfig/orig_irq_banned_cpus"
    decryption_keys_path: Annotated[str, Key("Private keys that open encrypted layers, a file each.", absolute=True)] = (
        "/etc/crio/keys/"
    )
    additional_artifact_stores: Annotated[tuple[str, ...], Key("Read-only stores of OCI artifacts.", works=_LATER)] = ()
    uid_mappings: Annotated[str, Key("User ids of all containers: container:host:size.", deprecated=_USERNS)] = ""
    gid_mappings: Annotated[str, Key("Group ids of all containers: container:host:size.", deprecated=_USERNS)] = ""
    minimum_mappable_uid: Annotated[int, Key("The lowest host user id that may be mapped.", deprecated=_USERNS)] = -1
    minimum_mappable_gid: Annotated[int, Key("The lowest host group id that may be mapped.", deprecated=_USERNS)] = -1
    enable_criu_support: Annotated[
        bool,
        Key("false switches checkpoints off.", works=_LATER, deprecated="container_level_enabled of crio.checkpoint_restore"),
    ] = True
    enable_pod_events: Annotated[
        bool, Key("Stream container events to kubelet, and answer PodSandboxStatus with containers.", env="ENABLE_POD_EVENTS")
    ] = False
    disable_hostport_mapping: Annotated[
        bool, Key("Host ports of pods are not mapped.", works=_LATER, env="DISABLE_HOSTPORT_MAPPING")
    ] = False
