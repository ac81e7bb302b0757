"""The mounts of a container: the kernel's filesystems, the pod's files, and what was asked for, in that order of claim.

A requested mount takes the place of a default at the same path and of all defaults below it. Mounts are ordered by depth,
so that a parent never hides its child. Files of the pod (resolv.conf and its like) may be written where the root filesystem
may: they lie on a small tmpfs of their own, which is all that filling them can fill (CVE-2020-8557).
Source: OCI runtime-spec, config.md, Mounts; CRI v1, Mount; mount_namespaces(7).
"""

from collections.abc import Iterable, Sequence
from typing import Final

from criollo.errors import Invalid, Unsupported
from criollo.model.container import Mount, Propagation
from criollo.model.pod import NamespaceMode
from criollo.oci import runtime_spec
from criollo.specgen import paths
from criollo.specgen.devices import device_mounts
from criollo.specgen.host import HostFacts
from criollo.specgen.process import runs_systemd
from criollo.specgen.request import ImageDefaults, PlannedMount, SourcePropagation, SpecRequest, is_mapped, mappings

TTY_GROUP: Final = 5  # devpts files belong to it: devpts(5), gid=

_SAFE: Final = ("nosuid", "noexec", "nodev")
_OPTIONS: Final = frozenset(_SAFE)
_BELOW_PROC: Final = frozenset(  # what runc lets through as well: libcontainer/rootfs_linux.go, checkProcMount
    "/proc/" + name
    for name in (
        "cpuinfo diskstats loadavg meminfo net/dev slabinfo stat swaps sys/crypto/fips_enabled sys/kernel/ns_last_pid uptime"
    ).split()
)
_OF_READ_ONLY: Final = {"/run": "0755", "/tmp": "1777", "/var/tmp": "1777"}  # noqa: S108
_OF_SYSTEMD: Final = {"/run": "0755", "/run/lock": "0755", "/tmp": "1777", "/var/log/journal": "0755"}  # noqa: S108
_STRENGTH: Final = {"": 0, Propagation.HOST_TO_CONTAINER.value: 1, Propagation.BIDIRECTIONAL.value: 2}


def mounts(request: SpecRequest, host: HostFacts) -> tuple[tuple[runtime_spec.Mount, ...], str]:
    """All mounts, parents first, and the propagation the rootfs needs for them ("" for the runtime's default).

    Raises:
        Invalid: a destination, option or propagation that cannot be.
        Unsupported: the runtime lacks recursive read-only or id-mapped mounts.
    """
    asked: dict[str, runtime_spec.Mount] = {}
    rootfs_propagation = ""
    for planned in request.mounts:
        mount, propagation = _requested(planned, request)
        if mount.destination in asked:
            raise Invalid("mounts.container_path", mount.destination, "each destination once")
        asked[mount.destination] = mount
        rootfs_propagation = max(rootfs_propagation, propagation, key=_STRENGTH.__getitem__)
    kept = [mount for mount in defaults(request, host) if not _is_covered(mount.destination, asked)]
    ordered = sorted([*kept, *asked.values()], key=lambda mount: paths.depth(mount.destination))
    return tuple(ordered), rootfs_propagation


def defaults(request: SpecRequest, host: HostFacts) -> list[runtime_spec.Mount]:
    """What every container has unless something else is asked for at its place."""
    found = [*_kernel_mounts(request, host), *device_mounts(request), *_pod_mounts(request)]
    fresh = dict(_OF_READ_ONLY) if request.defaults.read_only else {}
    if runs_systemd(request.config, request.image):
        fresh |= _OF_SYSTEMD
    found += [_writable_tmpfs(path, mode) for path, mode in fresh.items()]
    return [*found, *request.default_mounts]


def notes(request: SpecRequest, host: HostFacts) -> list[str]:
    """What of the cgroups is not as the container wants it."""
    is_systemd = runs_systemd(request.config, request.image)
    if not (is_systemd or request.writable_cgroups) or _has_writable_cgroups(request, host):
        return []
    why = "the node has cgroup v1" if not host.cgroup_v2 else "the node's cgroup2 is mounted without nsdelegate"
    return [f"cgroups are read-only in a container that wants to write them (systemd, or by annotation): {why}"]


def host_source(mount: Mount, prefix: str) -> str:
    """Where to look for a mount's source: its path below `bind_mount_prefix`.

    Raises:
        Invalid: no source, or not absolute.
    """
    if not mount.host_path:
        raise Invalid("mounts.host_path", mount.host_path, f"a source for {mount.container_path}")
    clean = paths.check_absolute(mount.host_path, "mounts.host_path")
    return prefix.rstrip("/") + clean if prefix else clean


def check_absent(source: str, rejected: Iterable[str]) -> None:
    """Whether a source that is not there may be made as a directory.

    Raises:
        Invalid: it is one of `absent_mount_sources_to_reject`.
    """
    if source in rejected:
        raise Invalid(
            "mounts.host_path",
            source,
            f"an existing path: cannot mount {source}: path does not exist and will cause issues as a directory",
        )


def image_volumes(image: ImageDefaults, asked: Sequence[Mount]) -> tuple[str, ...]:
    """Where the image wants volumes and the request mounts nothing.

    Raises:
        Invalid: a volume that is not absolute, or on or below /proc, /sys or /dev.
    """
    wanted = [paths.check_outside_kernel(path, "image config Volumes") for path in image.volumes]
    taken = {paths.check_absolute(mount.container_path, "mounts.container_path") for mount in asked}
    return tuple(path for path in dict.fromkeys(wanted) if path != "/" and path not in taken)


def _requested(planned: PlannedMount, request: SpecRequest) -> tuple[runtime_spec.Mount, str]:
    mount, source = planned.mount, planned.source
    destination = _destination(mount, source)
    if not source.startswith("/"):
        raise Unsupported(f"cannot mount {mount.image or mount.host_path} at {destination}: it has no place on this host")
    paths.check_text(source, "mounts.host_path")
    propagation = _propagation(planned, request.defaults.storage_root)
    unknown = set(mount.options) - _OPTIONS
    if unknown:
        raise Invalid("mounts.options", sorted(unknown), f"only {', '.join(_SAFE)}")
    if (mount.uid_mappings or mount.gid_mappings) and not request.defaults.supports_idmap:
        raise Unsupported(
            f"cannot mount {mount.host_path} at {destination}: idmap mounts specified but OCI runtime does not support them; "
            "use a newer runtime"
        )
    access = _access(mount, supports_rro=request.defaults.supports_rro)
    rootfs = "" if propagation is Propagation.PRIVATE else propagation.value
    return runtime_spec.Mount(
        destination=destination,
        type="bind",
        source=source,
        options=("rbind", propagation.value, access, *(word for word in _SAFE if word in mount.options)),
        uid_mappings=mappings(mount.uid_mappings),
        gid_mappings=mappings(mount.gid_mappings),
    ), rootfs


def _destination(mount: Mount, source: str) -> str:
    field = "mounts.container_path"
    clean = paths.check_absolute(mount.container_path, field)
    if clean == "/":
        raise Invalid(field, mount.container_path, "a path below /, not the root itself")
    if mount.image:
        return paths.check_outside_kernel(clean, field)
    if clean == "/proc" and source != "/proc":
        raise Invalid(field, mount.container_path, "nothing but the host's /proc at /proc")
    if clean.startswith("/proc/") and clean not in _BELOW_PROC:
        raise Invalid(field, mount.container_path, f"below /proc only {', '.join(sorted(_BELOW_PROC))}")
    return clean


def _propagation(planned: PlannedMount, storage_root: str) -> Propagation:
    """The propagation to use, checked against the source's.

    A private copy of the storage root would keep the mounts of other containers busy: it follows the host instead.
    """
    asked, mount = planned.mount.propagation, planned.mount
    if asked is Propagation.BIDIRECTIONAL and planned.propagation is not SourcePropagation.SHARED:
        raise Invalid("mounts.propagation", mount.host_path, "a source on a shared mount; on the host: mount --make-shared")
    if asked is Propagation.HOST_TO_CONTAINER and planned.propagation is SourcePropagation.PRIVATE:
        raise Invalid(
            "mounts.propagation", mount.host_path, "a source on a shared or slave mount; on the host: mount --make-shared"
        )
    holds_storage = bool(storage_root) and paths.is_at_or_below(storage_root, planned.source)
    if asked is Propagation.PRIVATE and holds_storage and not mount.recursive_read_only and not mount.image:
        return Propagation.HOST_TO_CONTAINER
    return asked


def _access(mount: Mount, *, supports_rro: bool) -> str:
    if mount.image:
        if not mount.readonly:
            raise Invalid("mounts.readonly", False, f"true: the image volume at {mount.container_path} cannot be written")
        return "ro"
    if not mount.recursive_read_only:
        return "ro" if mount.readonly else "rw"
    if not supports_rro:
        raise Unsupported(
            f"recursive read-only mount support is not available for hostPath {mount.host_path}: "
            "it needs kernel 5.12 and a runtime that knows rro"
        )
    return "rro"


def _kernel_mounts(request: SpecRequest, host: HostFacts) -> list[runtime_spec.Mount]:
    """Filesystems of a namespace the pod does not own cannot be mounted anew from a user namespace; they are bound.

    The host's cgroups, which come along with its /sys, are covered by the container's own, read-only (CVE-2023-25809).
    """
    namespaces = request.pod.config.security.namespaces
    in_user_ns = request.has_user_namespace
    writable = "rw" if request.privileged else "ro"
    cgroups = "rw" if request.privileged or _has_writable_cgroups(request, host) else "ro"
    host_pids = request.config.security.namespaces.pid is NamespaceMode.NODE
    host_ipc = namespaces.ipc is NamespaceMode.NODE
    host_network = namespaces.network is NamespaceMode.NODE
    tty = (f"gid={TTY_GROUP}",) if is_mapped(request.pod.gids, TTY_GROUP) else ()
    sys_access = "rro" if writable == "ro" and request.defaults.supports_rro else writable
    found = [
        _bound("/proc", "rw") if in_user_ns and host_pids else _fresh("/proc", "proc", "proc", *_SAFE),
        _fresh("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _bound("/sys", sys_access) if in_user_ns and host_network else _fresh("/sys", "sysfs", "sysfs", *_SAFE, writable),
        _fresh("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty),
        _fresh("/sys/fs/cgroup", "cgroup", "cgroup", *_SAFE, "relatime", cgroups),
    ]
    if not (in_user_ns and host_ipc):
        found.append(_fresh("/dev/mqueue", "mqueue", "mqueue", *_SAFE))
    elif host.has_mqueue:
        found.append(_bound("/dev/mqueue", "rw"))
    return found


def _has_writable_cgroups(request: SpecRequest, host: HostFacts) -> bool:
    """Its own cgroups, as its namespace shows them. An init system gets them unasked where it cannot lift its own limits there:
    the kernel guards the top of a namespace with nsdelegate only (cgroups(7))."""
    if not host.cgroup_v2:
        return False
    return request.writable_cgroups or (host.delegates_cgroups and runs_systemd(request.config, request.image))


def _pod_mounts(request: SpecRequest) -> list[runtime_spec.Mount]:
    pod = request.pod
    found = []
    readonly = request.config.security.readonly_rootfs or request.defaults.read_only
    options = ("bind", "ro" if readonly else "rw", *_SAFE)
    if pod.shm:
        # The kernel does not let a user namespace part the node's own from what is mounted below it.
        how = "rbind" if pod.shm == "/dev/shm" and request.has_user_namespace else "bind"  # noqa: S108
        found.append(runtime_spec.Mount(destination="/dev/shm", type="bind", source=pod.shm, options=(how, "rw")))  # noqa: S108
    for destination, source in (
        ("/etc/resolv.conf", pod.resolv_conf),
        ("/etc/hostname", pod.hostname_file),
        ("/etc/hosts", pod.hosts),
    ):
        if source:
            found.append(runtime_spec.Mount(destination=destination, type="bind", source=source, options=options))
    if pod.container_env:
        found.append(
            runtime_spec.Mount(
                destination="/run/.containerenv", type="bind", source=pod.container_env, options=("bind", "ro", *_SAFE)
            )
        )
    return found


def _fresh(destination: str, kind: str, source: str, *options: str) -> runtime_spec.Mount:
    return runtime_spec.Mount(destination=destination, type=kind, source=source, options=options)


def _bound(path: str, access: str) -> runtime_spec.Mount:
    return runtime_spec.Mount(destination=path, type="bind", source=path, options=("rbind", "rprivate", *_SAFE, access))


def _writable_tmpfs(path: str, mode: str) -> runtime_spec.Mount:
    """`tmpcopyup` is an extension of runc and crun: the image's content is copied in."""
    return _fresh(path, "tmpfs", "tmpfs", "rw", *_SAFE, "tmpcopyup", f"mode={mode}")


def _is_covered(path: str, asked: Iterable[str]) -> bool:
    return any(paths.is_at_or_below(path, top) for top in asked)
