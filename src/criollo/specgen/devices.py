"""Devices of a container: nodes, rules of the device cgroup, and who may ask for which.

    configured      `additional_devices`, for every container
    annotated       devices.crio.io of the pod, as far as `allowed_devices` go
    requested       those of the CRI; they win over the others at the same path
    host            all of the node's, for a privileged container

Source: OCI runtime-spec, config-linux.md; CRI v1, Device.
"""

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from criollo.errors import Denied, Invalid
from criollo.model.container import ContainerSecurity, Device
from criollo.oci import runtime_spec
from criollo.specgen import paths
from criollo.specgen.request import DeviceNode, SpecRequest

ANNOTATION: Final = "devices.crio.io"

_DENY_ALL: Final = runtime_spec.DeviceRule(allow=False, access="rwm")
_ALLOW_ALL: Final = runtime_spec.DeviceRule(allow=True, access="rwm")
_PERMISSIONS: Final = frozenset("rwm")
_MOST: Final = 64  # of one annotation
_BOUND: Final = ("bind", "rprivate", "nosuid", "noexec", "rw")
_EVERYWHERE: Final = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console")
)


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
        runtime_spec.Mount(destination=node.path, type="bind", source=node.host_path, options=_BOUND)
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


def parse_device(text: str, field: str) -> Device:
    """`/dev/fuse`, `/dev/sdc:/dev/xvdc`, `/dev/sdc:rw` or `/dev/sdc:/dev/xvdc:rwm`.

    Raises:
        Invalid: not of this form, or not below /dev.
    """
    host, *rest = text.strip().split(":")
    permissions = rest.pop() if rest and not rest[-1].startswith("/") else "rwm"
    if len(rest) > 1 or not permissions:
        raise Invalid(field, text, "<device on host>[:<device in container>][:<rwm>]")
    inside = rest[0] if rest else host
    for path in (host, inside):
        if not path.startswith("/dev/") or paths.check_absolute(path, field) != path:
            raise Invalid(field, text, "paths below /dev/, without '..' and doubled slashes; this is not a valid device")
    return Device(host_path=host, container_path=inside, permissions=_permissions(permissions, field))


def parse_devices(texts: Iterable[str], field: str) -> tuple[Device, ...]:
    """Several of them; empty texts are none. Raises as `parse_device`."""
    return tuple(parse_device(text, field) for text in texts if text.strip())


def annotated(text: str, allowed: Collection[str]) -> tuple[Device, ...]:
    """The devices of the annotation, which has commas between them.

    Raises:
        Invalid: malformed.
        Denied: one is not among `allowed_devices`.
    """
    if (count := text.count(",")) >= _MOST:
        raise Invalid(f"annotation {ANNOTATION}", f"{count + 1} devices", f"at most {_MOST}")
    found = parse_devices(text.split(","), f"annotation {ANNOTATION}")
    for device in found:
        if device.host_path not in allowed:
            raise Denied(
                f"cannot give device {device.host_path} to a container: annotation {ANNOTATION} asks for it, and it is not in "
                f"allowed_devices ({', '.join(sorted(allowed)) or 'empty'})"
            )
    return found


def owned(nodes: Iterable[DeviceNode], security: ContainerSecurity) -> tuple[DeviceNode, ...]:
    """The nodes as the user and group have them that the request names; what it does not name stays the host's."""
    uid, gid = security.run_as_user, security.run_as_group
    return tuple(
        msgspec.structs.replace(node, uid=node.uid if uid is None else uid, gid=node.gid if gid is None else gid)
        for node in nodes
    )


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


def _permissions(text: str, field: str = "devices.permissions") -> str:
    if not set(text) <= _PERMISSIONS or len(set(text)) != len(text):
        raise Invalid(field, text, "letters of rwm, each once")
    return text or "rwm"
