"""A Kubernetes Pod as `kpod play` and `kpod run` understand it: the fields that mean something on one node.

A field of the API that is not here is named by `unsupported` with its path, never passed over in silence. What would
change the meaning of a supported field, such as `subPath`, is here so that it can be refused.
Source: Kubernetes API, core/v1 Pod.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

from criollo.errors import Invalid
from criollo.oci.document import convert

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
_MAX_SUBDOMAIN: Final = 253
_MOST: Final = (1 << 31) - 1
_Id = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]  # of a user or group. Source: Kubernetes API, validation of securityContext
# What the API server writes into a Pod: of no use here, and no loss.
_SILENT: Final = frozenset(
    {"status"}
    | {
        f"metadata.{name}"
        for name in ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid", "generateName")
    }
)


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the manifest; absent and null are the same."""


class Metadata(Part, frozen=True, kw_only=True):
    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class FieldRef(Part, frozen=True, kw_only=True):
    field_path: str = ""
    api_version: str = "v1"


class ValueFrom(Part, frozen=True, kw_only=True):
    field_ref: FieldRef | None = None


class Variable(Part, frozen=True, kw_only=True):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class Port(Part, frozen=True, kw_only=True):
    container_port: int
    name: str = ""
    host_port: int = 0
    protocol: str = "TCP"
    host_ip: str = msgspec.field(name="hostIP", default="")


class VolumeMount(Part, frozen=True, kw_only=True):
    name: str
    mount_path: str
    read_only: bool = False
    mount_propagation: str = "None"
    sub_path: str = ""
    sub_path_expr: str = ""


class CapabilityChanges(Part, frozen=True, kw_only=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Profile(Part, frozen=True, kw_only=True):
    """A profile of AppArmor or seccomp."""

    type: str
    localhost_profile: str = ""


class SELinux(Part, frozen=True, kw_only=True):
    """Parts of a label; what is empty is the node's."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class ContainerSecurity(Part, frozen=True, kw_only=True):
    run_as_user: _Id | None = None
    run_as_group: _Id | None = None
    run_as_non_root: bool | None = None
    privileged: bool = False
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool = True
    capabilities: CapabilityChanges = CapabilityChanges()
    app_armor_profile: Profile | None = None
    seccomp_profile: Profile | None = None
    se_linux_options: SELinux | None = None


class Amounts(Part, frozen=True, kw_only=True):
    """Quantities."""

    cpu: str | int | float | None = None
    memory: str | int | float | None = None


class Limits(Part, frozen=True, kw_only=True):
    limits: Amounts = Amounts()
    requests: Amounts = Amounts()


class Container(Part, frozen=True, kw_only=True):
    name: str
    image: str
    image_pull_policy: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[Variable, ...] = ()
    ports: tuple[Port, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    security_context: ContainerSecurity = ContainerSecurity()
    resources: Limits = Limits()
    restart_policy: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class HostPath(Part, frozen=True, kw_only=True):
    path: str
    type: str = ""


class EmptyDir(Part, frozen=True, kw_only=True):
    """A directory of the pod's own."""


class Volume(Part, frozen=True, kw_only=True):
    name: str
    host_path: HostPath | None = None
    empty_dir: EmptyDir | None = None


class Sysctl(Part, frozen=True, kw_only=True):
    name: str
    value: str


class PodSecurity(Part, frozen=True, kw_only=True):
    run_as_user: _Id | None = None
    run_as_group: _Id | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: tuple[_Id, ...] = ()
    app_armor_profile: Profile | None = None
    seccomp_profile: Profile | None = None
    se_linux_options: SELinux | None = None
    sysctls: tuple[Sysctl, ...] = ()


class DnsOption(Part, frozen=True, kw_only=True):
    name: str
    value: str = ""


class DnsConfig(Part, frozen=True, kw_only=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class Spec(Part, frozen=True, kw_only=True):
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    hostname: str = ""
    host_network: bool = False
    host_pid: bool = msgspec.field(name="hostPID", default=False)
    host_ipc: bool = msgspec.field(name="hostIPC", default=False)
    share_process_namespace: bool = False
    dns_policy: str = ""
    dns_config: DnsConfig | None = None
    restart_policy: str = ""
    runtime_class_name: str = ""
    security_context: PodSecurity = PodSecurity()
    termination_grace_period_seconds: Annotated[int, msgspec.Meta(le=_MOST)] = 30


class Pod(Part, frozen=True, kw_only=True):
    metadata: Metadata
    spec: Spec
    api_version: str = "v1"
    kind: str = "Pod"


def read_pod(document: Mapping[str, Any], name: str) -> Pod:
    """A parsed document as a Pod; `name` stands in errors.

    Raises:
        Invalid: a field of a wrong type, a missing one, or a name that cannot be; the message has its path.
    """
    pod = convert(_without_nulls(document), Pod, what=name)
    check_names(pod)
    return pod


def check_names(pod: Pod) -> None:
    """Raise Invalid unless names are what Kubernetes takes: they become parts of paths, and must be told apart."""
    _check("metadata.name", pod.metadata.name, _SUBDOMAIN, _MAX_SUBDOMAIN)
    _check("metadata.namespace", pod.metadata.namespace, _LABEL)
    if not pod.spec.containers:
        raise Invalid("spec.containers", "none", "one container or more")
    _check_apart(
        [(f"spec.initContainers[{index}].name", each.name) for index, each in enumerate(pod.spec.init_containers)]
        + [(f"spec.containers[{index}].name", each.name) for index, each in enumerate(pod.spec.containers)]
    )
    _check_apart([(f"spec.volumes[{index}].name", each.name) for index, each in enumerate(pod.spec.volumes)])


def unsupported(document: Mapping[str, Any]) -> list[str]:
    """The paths of fields that a document has and `Pod` has not, in order, without those of no use on a node."""
    return [path for path in _unknown(_without_nulls(document), Pod, "") if path not in _SILENT]


def _unknown(value: object, kind: Any, path: str) -> Iterator[str]:
    if get_origin(kind) in (Union, UnionType):
        kind = next((each for each in get_args(kind) if each is not type(None)), object)
    if isinstance(value, list) and get_origin(kind) is tuple:
        for index, member in enumerate(value):
            yield from _unknown(member, get_args(kind)[0], f"{path}[{index}]")
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        for key, member in value.items():
            place = f"{path}.{key}" if path else str(key)
            if key not in known:
                yield place
            else:
                yield from _unknown(member, known[key], place)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value


def _check(field: str, name: str, pattern: re.Pattern[str], longest: int = 63) -> None:
    if len(name) > longest or not pattern.fullmatch(name):
        raise Invalid(field, name, f"at most {longest} lower-case letters, digits and dashes, as Kubernetes names it")


def _check_apart(named: Sequence[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for place, name in named:
        _check(place, name, _LABEL)
        if name in seen:
            raise Invalid(place, name, "a name that stands only once")
        seen.add(name)
