"""One CDI spec, bytes → checked values.

JSON or YAML without aliases and at most a megabyte (CVE-2019-11253). Unknown fields are refused, as the reference does it:
a field that is passed over may be the one that the device needs. Source: CDI SPEC.md, versions 0.3.0 to 1.1.0.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from criollo.errors import Invalid
from criollo.oci.document import convert, parse

LIMIT_BYTES: Final = 1 << 20
VERSIONS: Final = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
STAGES: Final = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}

_KIND: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
_DEVICE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?", re.ASCII)
_TYPES: Final = ("", "b", "c", "u", "p")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_INTERFACE: Final = re.compile(r"(?!\.{1,2}\Z)[!-.0-~]{1,15}")  # dev_valid_name, net/core/dev.c
_IDS: Final = range(1 << 32)
_MODES: Final = range(0o10000)


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A piece of the document."""


class Node(Part, frozen=True, kw_only=True):
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class NetDevice(Part, frozen=True, kw_only=True):
    host_interface_name: str
    name: str


class Hook(Part, frozen=True, kw_only=True):
    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None
    timeout: int | None = None


class Mount(Part, frozen=True, kw_only=True):
    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class IntelRdt(Part, frozen=True, kw_only=True):
    clos_id: str = msgspec.field(default="", name="closID")
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False
    enable_cmt: bool = msgspec.field(default=False, name="enableCMT")  # until 1.0.0: the two halves of monitoring
    enable_mbm: bool = msgspec.field(default=False, name="enableMBM")

    @property
    def is_monitored(self) -> bool:
        return self.enable_monitoring or self.enable_cmt or self.enable_mbm


class ContainerEdits(Part, frozen=True, kw_only=True):
    env: tuple[str, ...] = ()
    device_nodes: tuple[Node, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    hooks: tuple[Hook, ...] = ()
    mounts: tuple[Mount, ...] = ()
    intel_rdt: IntelRdt | None = None
    additional_gids: tuple[int, ...] = ()


class Device(Part, frozen=True, kw_only=True):
    name: str
    annotations: dict[str, str] = {}
    container_edits: ContainerEdits = ContainerEdits()


class Spec(Part, frozen=True, kw_only=True):
    """`kind` is vendor/class."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: tuple[Device, ...]
    container_edits: ContainerEdits = ContainerEdits()


def read_spec(raw: bytes, name: str) -> Spec:
    """The spec in a file; `name` stands in errors.

    Raises:
        Invalid: it is none; the message has the field.
    """
    spec = convert(_without_nulls(_parsed(raw, name)), Spec, what=name)
    if spec.cdi_version.removeprefix("v") not in VERSIONS:
        raise Invalid(f"{name}.cdiVersion", spec.cdi_version, f"a version from {VERSIONS[0]} to {VERSIONS[-1]}")
    if not _KIND.fullmatch(spec.kind):
        raise Invalid(f"{name}.kind", spec.kind, "vendor/class")
    _check(spec.container_edits, f"{name}.containerEdits")
    if not spec.devices:
        raise Invalid(f"{name}.devices", "[]", "at least one device")
    seen: set[str] = set()
    for at, device in enumerate(spec.devices):
        field = f"{name}.devices[{at}]"
        if not _DEVICE.fullmatch(device.name) or device.name in seen:
            raise Invalid(f"{field}.name", device.name, "letters, digits and _.:- within, each name once")
        seen.add(device.name)
        if device.container_edits == ContainerEdits():
            raise Invalid(f"{field}.containerEdits", "nothing", "at least one edit")
        _check(device.container_edits, f"{field}.containerEdits")
    return spec


def is_qualified(name: str) -> bool:
    """Whether a text is the name of a device: vendor/class=device."""
    kind, _, device = name.partition("=")
    return bool(_KIND.fullmatch(kind) and _DEVICE.fullmatch(device))


def _parsed(raw: bytes, name: str) -> Any:
    if raw.lstrip()[:1] == b"{":
        return parse(raw, what=name, limit_bytes=LIMIT_BYTES)
    from criollo.oci.yaml_documents import read_documents  # PyYAML is 2 MiB; most nodes have no specs

    found = read_documents(raw, name)
    if len(found) != 1:
        raise Invalid(name, f"{len(found)} documents", "one")
    return found[0]


def _without_nulls(value: Any) -> Any:
    """Null means absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return [_without_nulls(member) for member in value] if isinstance(value, list) else value


def _check(edits: ContainerEdits, field: str) -> None:
    check_env(edits.env, f"{field}.env")
    for at, node in enumerate(edits.device_nodes):
        _check_node(node, f"{field}.deviceNodes[{at}]")
    for at, mount in enumerate(edits.mounts):
        _check_mount(mount, f"{field}.mounts[{at}]")
    for at, hook in enumerate(edits.hooks):
        _check_hook(hook, f"{field}.hooks[{at}]")
    for at, gid in enumerate(edits.additional_gids):
        _check_number(gid, _IDS, f"{field}.additionalGids[{at}]")
    _check_net_devices(edits.net_devices, f"{field}.netDevices")
    if edits.intel_rdt is not None:
        group = edits.intel_rdt.clos_id
        if group != "/" and (group in (".", "..") or "/" in group or len(group) >= 4096 or _CONTROL.search(group)):
            raise Invalid(f"{field}.intelRdt.closID", group, "the name of a directory, or '/'")


def check_env(env: Sequence[str], field: str) -> None:
    """Whether all are NAME=value. The value is never shown. Raises Invalid."""
    for at, word in enumerate(env):
        name, equals, _ = word.partition("=")
        if not name or not equals or "\0" in word:
            raise Invalid(f"{field}[{at}]", name, "NAME=value without NUL")


def check_path(path: str, field: str) -> None:
    """Whether a path is absolute and everybody reads it as the same one. Raises Invalid."""
    if not path.startswith("/") or ".." in path.split("/") or _CONTROL.search(path) or len(path) >= 4096:
        raise Invalid(field, path, "an absolute path without '..' and control characters")


def _check_node(node: Node, field: str) -> None:
    check_path(node.path, f"{field}.path")
    if node.host_path:
        check_path(node.host_path, f"{field}.hostPath")
    if node.type not in _TYPES:
        raise Invalid(f"{field}.type", node.type, "b, c, u or p")
    if not set(node.permissions) <= set("rwm"):
        raise Invalid(f"{field}.permissions", node.permissions, "letters of rwm")
    for name, number in (("major", node.major), ("minor", node.minor), ("uid", node.uid), ("gid", node.gid)):
        _check_number(number or 0, _IDS, f"{field}.{name}")
    _check_number(node.file_mode or 0, _MODES, f"{field}.fileMode")


def _check_mount(mount: Mount, field: str) -> None:
    check_path(mount.container_path, f"{field}.containerPath")
    if not mount.container_path.strip("/"):
        raise Invalid(f"{field}.containerPath", mount.container_path, "a path below '/'")
    if not mount.host_path or _CONTROL.search(mount.host_path):
        raise Invalid(f"{field}.hostPath", mount.host_path, "a source")
    for option in (*mount.options, mount.type):
        if _CONTROL.search(option):
            raise Invalid(f"{field}.options", option, "words without control characters")


def _check_hook(hook: Hook, field: str) -> None:
    if hook.hook_name not in STAGES:
        raise Invalid(f"{field}.hookName", hook.hook_name, f"one of {', '.join(STAGES)}")
    check_path(hook.path, f"{field}.path")
    check_env(hook.env or (), f"{field}.env")
    if hook.timeout is not None and hook.timeout <= 0:
        raise Invalid(f"{field}.timeout", hook.timeout, "a positive number of seconds")


def _check_net_devices(devices: Sequence[NetDevice], field: str) -> None:
    for at, device in enumerate(devices):
        for name in (device.host_interface_name, device.name):
            if not _INTERFACE.fullmatch(name):
                raise Invalid(f"{field}[{at}]", name, "a name of a network interface")
    for names in ([each.host_interface_name for each in devices], [each.name for each in devices]):
        if len(set(names)) != len(names):
            raise Invalid(field, names, "each name once")


def _check_number(number: int, allowed: range, field: str) -> None:
    if number not in allowed:
        raise Invalid(field, number, f"a number from 0 to {allowed.stop - 1}")
