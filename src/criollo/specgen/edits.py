"""Edits of a finished spec: what CDI devices bring. Later ones take the place of what is there.

Source: CDI SPEC.md, Container edits; OCI runtime-spec, config-linux.md.
"""

from typing import Final

import msgspec

from criollo.errors import Invalid, Unsupported
from criollo.model.edits import EditedNode, Edits
from criollo.oci import runtime_spec
from criollo.specgen import paths
from criollo.specgen.request import SpecRequest, is_mapped

_BOUND: Final = ("bind", "rprivate", "nosuid", "noexec", "rw")


def apply(spec: runtime_spec.Spec, edits: Edits, request: SpecRequest) -> runtime_spec.Spec:
    """The spec with the edits.

    Raises:
        Invalid: a node or group that the container cannot have.
        Unsupported: the runtime does not move network interfaces.
    """
    process, linux = spec.process, spec.linux
    if process is None or linux is None:
        raise ValueError("a spec without process or linux")
    return msgspec.structs.replace(
        spec,
        process=_process(process, edits, request),
        mounts=_mounts(spec.mounts, edits, request),
        hooks=(spec.hooks or runtime_spec.Hooks()).followed_by(edits.hooks)
        if edits.hooks != runtime_spec.Hooks()
        else spec.hooks,
        linux=_linux(linux, edits, request),
    )


def _process(process: runtime_spec.Process, edits: Edits, request: SpecRequest) -> runtime_spec.Process:
    env = {word.partition("=")[0]: word for word in (*process.env, *edits.env)}
    for gid in edits.gids:
        if not is_mapped(request.pod.gids, gid):
            raise Invalid("additionalGids of a CDI device", gid, "a group that the pod's user namespace has")
    groups = tuple(dict.fromkeys((*process.user.additional_gids, *edits.gids)))
    user = msgspec.structs.replace(process.user, additional_gids=groups) if edits.gids else process.user
    return msgspec.structs.replace(process, env=tuple(env.values()), user=user)


def _mounts(mounts: tuple[runtime_spec.Mount, ...], edits: Edits, request: SpecRequest) -> tuple[runtime_spec.Mount, ...]:
    """Nodes are bound into a container in a user namespace: it cannot make any."""
    bound = [
        runtime_spec.Mount(destination=node.path, type="bind", source=node.host_path, options=_BOUND)
        for node in (edits.nodes if request.has_user_namespace else ())
    ]
    new = {mount.destination: mount for mount in (*bound, *edits.mounts)}
    if not new:
        return mounts
    kept = [mount for mount in mounts if mount.destination not in new]
    return tuple(sorted([*kept, *new.values()], key=lambda mount: paths.depth(mount.destination)))


def _linux(linux: runtime_spec.Linux, edits: Edits, request: SpecRequest) -> runtime_spec.Linux:
    if edits.net_devices and not request.defaults.supports_net_devices:
        raise Unsupported(
            f"cannot give network interface {next(iter(edits.net_devices))} of CDI device {', '.join(edits.net_devices_of)} "
            f"to container {request.container_name}: its runtime, {request.defaults.runtime or 'of unknown version'}, does not "
            "know linux.netDevices (its features do not name them); use a newer one"
        )
    nodes = {node.path: _node(node, request) for node in edits.nodes}
    kept = tuple(device for device in linux.devices if device.path not in nodes)
    resources = linux.resources or runtime_spec.Resources()
    rules = resources.devices
    if not (rules and rules[-1].allow and not rules[-1].type):  # all are allowed already
        rules += tuple(_rule(node) for node in edits.nodes if node.type in ("b", "c"))
    return msgspec.structs.replace(
        linux,
        devices=kept if request.has_user_namespace else (*kept, *nodes.values()),
        resources=msgspec.structs.replace(resources, devices=rules),
        intel_rdt=edits.intel_rdt or linux.intel_rdt,
        net_devices={
            **linux.net_devices,
            **{host: runtime_spec.NetDevice(name=name) for host, name in edits.net_devices.items()},
        },
    )


def _node(node: EditedNode, request: SpecRequest) -> runtime_spec.Device:
    clean = paths.check_absolute(node.path, "path of a CDI device node")
    if any(paths.is_at_or_below(clean, top) for top in ("/proc", "/sys")):
        raise Invalid("path of a CDI device node", node.path, "a path outside /proc and /sys")
    user = request.user
    return runtime_spec.Device(
        path=clean,
        type=node.type,
        major=node.major,
        minor=node.minor,
        file_mode=node.mode,
        uid=user.uid if node.uid is None else node.uid,
        gid=user.gid if node.gid is None else node.gid,
    )


def _rule(node: EditedNode) -> runtime_spec.DeviceRule:
    return runtime_spec.DeviceRule(allow=True, type=node.type, major=node.major, minor=node.minor, access=node.permissions)
