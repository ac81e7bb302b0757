"""The whole configuration as one frozen value, with the names, meanings and defaults of crio.conf(5).

`Settings` is the table [crio]; its tables follow. Defaults live here and in the modules of the longer tables:
`runtime`, `handlers`, `later`. What differs from CRI-O on purpose: state and sockets stand in directories of their own,
`cgroup_manager` follows the host, restore from checkpoints and experimental annotations are off until switched on.
"""

from typing import Annotated, Final

import msgspec

from criollo.config.care import Care
from criollo.config.keys import Key, Table, Works
from criollo.config.later import CheckpointRestore, Nri
from criollo.config.profile import Profile
from criollo.config.runtime import Runtime
from criollo.config.stats import Stats
from criollo.config.telemetry import Metrics, Tracing
from criollo.config.values import Duration

MESSAGE_SIZE_BYTES: Final = 80 << 20

_LATER = Works.LATER


class Api(Table, frozen=True, kw_only=True):
    """The sockets: [crio.api]."""

    listen: Annotated[str, Key("The unix socket for CRI and for HTTP.", absolute=True)] = "/run/criollo/criollo.sock"
    grpc_max_send_msg_size: Annotated[int, Key("Largest gRPC answer in bytes; 0: 80 MiB.")] = MESSAGE_SIZE_BYTES
    grpc_max_recv_msg_size: Annotated[int, Key("Largest gRPC request in bytes; 0: 80 MiB.")] = MESSAGE_SIZE_BYTES
    stream_address: Annotated[
        str, Key("IP address of the exec, attach and port-forward server; empty, '0.0.0.0' or '::': all addresses.")
    ] = "127.0.0.1"
    stream_port: Annotated[str, Key("Its port; '0': any free one.")] = "0"
    stream_enable_tls: Annotated[bool, Key("Serve streams over TLS.", env="CONTAINER_ENABLE_TLS")] = False
    stream_idle_timeout: Annotated[
        str,
        Key("A session without a byte either way ends after this time; '0': never. Empty: 4h.", env="STREAM_IDLE_TIMEOUT"),
    ] = ""
    stream_tls_cert: Annotated[
        str,
        Key("Certificate of the stream server, in PEM. Loaded again when it changes.", absolute=True, env="CONTAINER_TLS_CERT"),
    ] = ""
    stream_tls_key: Annotated[str, Key("Key of that certificate, not encrypted.", absolute=True, env="CONTAINER_TLS_KEY")] = ""
    stream_tls_ca: Annotated[
        str,
        Key("Authorities of client certificates. Empty: clients need none.", absolute=True, env="CONTAINER_TLS_CA"),
    ] = ""
    tls_min_version: Annotated[str, Key("Oldest TLS version of the servers.", choices=("VersionTLS12", "VersionTLS13"))] = (
        "VersionTLS12"
    )
    tls_cipher_suites: Annotated[
        tuple[str, ...], Key("Cipher suites for TLS 1.2, by IANA's names. Empty: OpenSSL's choice.")
    ] = ()


class Image(Table, frozen=True, kw_only=True):
    """Images: [crio.image]."""

    pause_image: Annotated[
        str, Key("Image of infra containers. Where it is not on the node, catatonit of the host is used.")
    ] = "registry.k8s.io/pause:3.10.1"
    pause_image_auth_file: Annotated[
        str, Key("Auth file for pulls of the pause image, instead of all others.", absolute=True)
    ] = ""
    pause_command: Annotated[str, Key("The program of the pause image.")] = "/pause"
    default_transport: Annotated[str, Key("Transport of image names that name none.")] = "docker://"
    global_auth_file: Annotated[str, Key("Credentials for registries.", absolute=True)] = ""
    namespaced_auth_dir: Annotated[
        str,
        Key("Credentials that serve one pull: <namespace>-<sha256 of the image's name>.json.", absolute=True),
    ] = "/etc/crio/auth"
    pinned_images: Annotated[tuple[str, ...], Key("Images kubelet must not remove: a name, 'name*' or '*part*'.")] = ()
    signature_policy: Annotated[str, Key("The trust policy. Empty: /etc/containers/policy.json.", absolute=True)] = ""
    signature_policy_dir: Annotated[str, Key("Trust policies by Kubernetes namespace: <namespace>.json.", absolute=True)] = (
        "/etc/crio/policies"
    )
    image_volumes: Annotated[
        str,
        Key(
            "Volumes that an image declares: a directory in the container, a bind mount, or nothing.",
            choices=("mkdir", "bind", "ignore"),
        ),
    ] = "mkdir"
    insecure_registries: Annotated[
        tuple[str, ...],
        Key("Registries without TLS.", works=Works.DEAD, deprecated="'insecure' in registries.conf", flag="insecure-registry"),
    ] = ()
    big_files_temporary_dir: Annotated[
        str,
        Key("Where layers wait that are pushed, and images that are saved. Empty: the root, or where they go.", absolute=True),
    ] = ""
    separate_pull_cgroup: Annotated[
        str, Key("The cgroup that pulls run in; 'pod': the pod's.", works=_LATER, env="PULL_IN_A_CGROUP")
    ] = ""
    auto_reload_registries: Annotated[
        bool, Key("Read registries.conf and its directory again when they change.", env="AUTO_RELOAD_REGISTRIES")
    ] = False
    registries_conf: Annotated[
        str, Key("The file of registries, in place of those that are usual. Empty: as other tools find it.", absolute=True)
    ] = ""
    registries_conf_dir: Annotated[
        str, Key("The directory of its drop-ins, in place of all others. Empty: as other tools find them.", absolute=True)
    ] = ""
    pull_progress_timeout: Annotated[Duration, Key("A pull without progress for so long is given up; '0s': never.")] = Duration(
        0.0, "0s"
    )
    oci_artifact_mount_support: Annotated[
        bool, Key("OCI artifacts can be mounted as volumes.", env="CONTAINER_OCI_ARTIFACT_SUPPORT")
    ] = True
    short_name_mode: Annotated[
        str,
        Key(
            "Short names with several meanings: refuse, or try each. Empty: as registries.conf says.",
            choices=("enforcing", "permissive", "disabled", ""),
        ),
    ] = "enforcing"


class Network(Table, frozen=True, kw_only=True):
    """Pod networks: [crio.network]."""

    cni_default_network: Annotated[str, Key("Name of the network pods get. Empty: the first of network_dir.")] = ""
    network_dir: Annotated[str, Key("CNI network configurations.", absolute=True, flag="cni-config-dir")] = "/etc/cni/net.d/"
    plugin_dirs: Annotated[tuple[str, ...], Key("Directories of CNI plugins.", flag="cni-plugin-dir")] = (
        "/opt/cni/bin",
        "/usr/lib/cni",
    )
    plugin_dir: Annotated[str, Key("One more directory of CNI plugins.", absolute=True, flag="", deprecated="plugin_dirs")] = ""
    cni_status_grace_period: Annotated[
        Duration,
        Key(
            "How long a network may be unwell before the node is; '0s': asked at start only.",
            works=_LATER,
            env="CNI_STATUS_GRACE_PERIOD",
        ),
    ] = Duration(0.0, "0s")


class Settings(Table, frozen=True, kw_only=True):
    """Where state and images stand, and the other tables: [crio]."""

    root: Annotated[str, Key("Images, layers, writable layers and the databases.", absolute=True, short="r")] = (
        "/var/lib/criollo"
    )
    runroot: Annotated[str, Key("State that a reboot may lose; best a tmpfs.", absolute=True)] = "/run/criollo"
    imagestore: Annotated[
        str, Key("Where layers and the database of images are. Empty: in root, as writable layers are.", absolute=True)
    ] = ""
    storage_driver: Annotated[str, Key("How root filesystems are made.", choices=("overlay", "btrfs", "vfs"), short="s")] = (
        "overlay"
    )
    storage_option: Annotated[
        tuple[str, ...], Key("Options of the storage driver: 'overlay.size=10GiB'.", flag="storage-opt")
    ] = ()
    log_dir: Annotated[str, Key("Container logs, where kubelet names no other place.", absolute=True)] = "/var/log/criollo/pods"
    version_file: Annotated[
        str,
        Key(
            "Our version, on a tmpfs: tells 'crio wipe' a reboot from a restart. Empty: nothing does.", absolute=True, none=True
        ),
    ] = "/run/criollo/version"
    version_file_persist: Annotated[
        str, Key("Our version, on the disk: at another minor version images go. Empty: they stay.", absolute=True)
    ] = ""
    internal_wipe: Annotated[
        bool,
        Key(
            "Remove images at start when version_file_persist asks for it; containers of the last boot always go.",
            deprecated="version_file_persist alone",
        ),
    ] = True
    internal_repair: Annotated[bool, Key("Check the stores at start after an unclean end, and pull again what is missing.")] = (
        True
    )
    clean_shutdown_file: Annotated[
        str,
        Key("Written when the daemon has ended as it should and all is flushed. Empty: never.", absolute=True, none=True),
    ] = "/var/lib/criollo/clean.shutdown"

    api: Api = Api()
    runtime: Runtime = msgspec.field(default_factory=Runtime)
    checkpoint_restore: CheckpointRestore = CheckpointRestore()
    image: Image = Image()
    network: Network = Network()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()
    stats: Stats = Stats()
    nri: Nri = Nri()
    care: Care = Care()
    profile: Profile = Profile()


def defaults(*, systemd: bool, selinux: bool = False) -> Settings:
    """The settings of a host that no file says anything about; `systemd` is PID 1 there, `selinux` on in the kernel."""
    return Settings(runtime=Runtime(cgroup_manager="systemd" if systemd else "cgroupfs", selinux=selinux))
