"""CRI messages of containers as values of ours, checked; as `read` for pods."""

import posixpath
from collections.abc import Sequence
from typing import Final

from criollo.cri import checks, read, read_image
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.signals import kernel_signal
from criollo.errors import Invalid
from criollo.model.container import Capabilities, ContainerConfig, ContainerSecurity, Device, Mount, Propagation
from criollo.model.pod import IdMapping, Resources

_PROPAGATIONS: Final = {0: Propagation.PRIVATE, 1: Propagation.HOST_TO_CONTAINER, 2: Propagation.BIDIRECTIONAL}
_MOUNT_OPTIONS: Final = frozenset({"noexec", "nodev", "nosuid"})
_MAPPINGS: Final = 340  # of a user namespace: user_namespaces(7)


def container_config(config: pb.ContainerConfig, *, field: str = "config") -> ContainerConfig:
    """What a container shall be."""
    if not config.HasField("metadata"):
        raise Invalid(f"{field}.metadata", None, "name and attempt of the container")
    for name in ("envs", "mounts", "devices", "CDI_devices"):
        checks.count(f"{field}.{name}", getattr(config, name))
    return ContainerConfig(
        name=checks.name(f"{field}.metadata.name", config.metadata.name),
        attempt=config.metadata.attempt,
        image=read_image.image_spec(config.image, f"{field}.image"),
        command=checks.arguments(f"{field}.command", config.command),
        args=checks.arguments(f"{field}.args", config.args),
        working_dir=checks.path(f"{field}.working_dir", config.working_dir, required=False),
        env=_environment(config, f"{field}.envs"),
        mounts=tuple(_mount(mount, f"{field}.mounts[{at}]") for at, mount in enumerate(config.mounts)),
        devices=tuple(_device(device, f"{field}.devices[{at}]") for at, device in enumerate(config.devices)),
        cdi_devices=checks.all_text(f"{field}.CDI_devices", [device.name for device in config.CDI_devices], limit=512),
        labels=checks.pairs(f"{field}.labels", config.labels),
        annotations=checks.pairs(f"{field}.annotations", config.annotations),
        log_path=checks.relative_path(f"{field}.log_path", config.log_path),
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        resources=read.resources(config.linux.resources, f"{field}.linux.resources"),
        security=_security(config.linux.security_context, f"{field}.linux.security_context"),
        stop_signal=kernel_signal(config.stop_signal, f"{field}.stop_signal"),
    )


def new_resources(request: pb.UpdateContainerResourcesRequest) -> Resources:
    """Limits to change. Raises Invalid when there are none."""
    if not request.HasField("linux"):
        raise Invalid("linux", None, "the resources to change")
    return read.resources(request.linux, "linux")


def _environment(config: pb.ContainerConfig, field: str) -> tuple[tuple[str, str], ...]:
    found = []
    for at, variable in enumerate(config.envs):
        name = checks.words(f"{field}[{at}].key", variable.key, limit=checks.TEXT_LENGTH)
        if not name or "=" in name:
            raise Invalid(f"{field}[{at}].key", name, "a name without '='")
        try:
            value = variable.value.decode()
        except UnicodeDecodeError:
            raise Invalid(f"{field}[{at}].value", f"bytes of {name}", "UTF-8: a runtime spec carries nothing else") from None
        if "\0" in value or len(value) > 1 << 20:
            raise Invalid(f"{field}[{at}].value", f"{len(value)} characters of {name}", "at most 1 MiB without NUL")
        found.append((name, value))
    return tuple(found)


def _mount(mount: pb.Mount, field: str) -> Mount:
    container_path = checks.path(f"{field}.container_path", mount.container_path)
    if posixpath.normpath(container_path).strip("/") in ("", ".."):
        raise Invalid(f"{field}.container_path", container_path, "a path below '/'")
    checks.one_of(
        f"{field}.propagation", mount.propagation, _PROPAGATIONS, "PRIVATE (0), HOST_TO_CONTAINER (1) or BIDIRECTIONAL (2)"
    )
    _check_recursive(mount, field)
    return Mount(
        container_path=container_path,
        host_path=_mount_source(mount, field),
        readonly=mount.readonly or bool(mount.image.image),  # by definition: CRI v1, Mount.image
        recursive_read_only=mount.recursive_read_only,
        selinux_relabel=mount.selinux_relabel,
        propagation=_PROPAGATIONS[mount.propagation],
        uid_mappings=_mappings(mount, "uidMappings", field),
        gid_mappings=_mappings(mount, "gidMappings", field),
        image=checks.text(f"{field}.image.image", mount.image.image, limit=1024),
        image_sub_path=checks.relative_path(f"{field}.image_sub_path", mount.image_sub_path),
        user_specified_image=checks.text(f"{field}.image.user_specified_image", mount.image.user_specified_image, limit=1024),
        options=_mount_options(mount, field),
    )


def _mount_source(mount: pb.Mount, field: str) -> str:
    """The host path of a bind; empty for an image volume."""
    if not mount.image.image:
        if mount.image_sub_path:
            raise Invalid(f"{field}.image_sub_path", mount.image_sub_path, "an image too")
        return checks.path(f"{field}.host_path", mount.host_path)
    if mount.host_path:
        raise Invalid(f"{field}.host_path", mount.host_path, "nothing: the mount has an image")
    return ""


def _check_recursive(mount: pb.Mount, field: str) -> None:
    if mount.recursive_read_only and not mount.readonly:
        expected = "readonly too: recursive read-only mount conflicts with read-write mount"
        raise Invalid(f"{field}.recursive_read_only", mount.host_path, expected)
    if mount.recursive_read_only and mount.propagation != pb.PROPAGATION_PRIVATE:
        expected = "no propagation: recursive read-only mount requires private propagation"
        raise Invalid(f"{field}.recursive_read_only", mount.host_path, expected)


def _mappings(mount: pb.Mount, name: str, field: str) -> tuple[IdMapping, ...]:
    given = getattr(mount, name)
    checks.count(f"{field}.{name}", given, _MAPPINGS)
    return tuple(read.id_mapping(mapping, f"{field}.{name}[{at}]") for at, mapping in enumerate(given))


def _mount_options(mount: pb.Mount, field: str) -> tuple[str, ...]:
    for option in mount.mount_options:
        if option not in _MOUNT_OPTIONS:
            raise Invalid(f"{field}.mount_options", option, "noexec, nodev or nosuid")
    return tuple(dict.fromkeys(mount.mount_options))


def _device(device: pb.Device, field: str) -> Device:
    permissions = device.permissions or "rwm"
    if not set(permissions) <= set("rwm") or len(set(permissions)) != len(permissions):
        raise Invalid(f"{field}.permissions", device.permissions, "some of the letters r, w and m")
    return Device(
        container_path=checks.plain_path(f"{field}.container_path", device.container_path),
        host_path=checks.plain_path(f"{field}.host_path", device.host_path),
        permissions=permissions,
    )


def _security(context: pb.LinuxContainerSecurityContext, field: str) -> ContainerSecurity:
    user, group = (read.optional_id(context, name, field) for name in ("run_as_user", "run_as_group"))
    username = checks.text(f"{field}.run_as_username", context.run_as_username, limit=checks.NAME_LENGTH)
    if ":" in username:
        raise Invalid(f"{field}.run_as_username", username, "a user's name alone, without ':'")
    if user is not None and username:
        raise Invalid(f"{field}.run_as_username", username, "nothing: run_as_user is given")
    if group is not None and user is None and not username:
        raise Invalid(f"{field}.run_as_group", group, "run_as_user or run_as_username too: a group alone names nobody")
    return ContainerSecurity(
        capabilities=_capabilities(context.capabilities, f"{field}.capabilities"),
        privileged=context.privileged,
        namespaces=read.namespaces(context.namespace_options, f"{field}.namespace_options", may_target=True),
        selinux=read.optional_selinux(context, field),
        run_as_user=user,
        run_as_group=group,
        run_as_username=username,
        readonly_rootfs=context.readonly_rootfs,
        supplemental_groups=read.groups(context.supplemental_groups, f"{field}.supplemental_groups"),
        supplemental_groups_strict=read.is_strict(context.supplemental_groups_policy, f"{field}.supplemental_groups_policy"),
        no_new_privs=context.no_new_privs,
        masked_paths=_paths(context.masked_paths, f"{field}.masked_paths"),
        readonly_paths=_paths(context.readonly_paths, f"{field}.readonly_paths"),
        seccomp=read.profile(context, "seccomp", "seccomp_profile_path", field),
        apparmor=read.profile(context, "apparmor", "apparmor_profile", field),
    )


def _capabilities(given: pb.Capability, field: str) -> Capabilities:
    lists = {}
    for name in ("add_capabilities", "drop_capabilities", "add_ambient_capabilities"):
        values = getattr(given, name)
        checks.count(f"{field}.{name}", values, 200)
        lists[name] = tuple(_capability(value, f"{field}.{name}[{at}]") for at, value in enumerate(values))
    return Capabilities(
        add=lists["add_capabilities"], drop=lists["drop_capabilities"], add_ambient=lists["add_ambient_capabilities"]
    )


def _capability(value: str, field: str) -> str:
    """`CAP_` and a name, or `ALL`; whether the kernel knows it is for the spec to say."""
    name = value.upper()
    if not (name.isascii() and name.replace("_", "").isalnum() and len(name) <= 64):
        raise Invalid(field, value, "the name of a capability, like NET_ADMIN")
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _paths(values: Sequence[str], field: str) -> tuple[str, ...]:
    checks.count(field, values)
    return tuple(checks.plain_path(f"{field}[{at}]", value) for at, value in enumerate(values))
