"""Annotations of the spec: control words of runtimes and hooks, so who may write which one is decided here (threats R5).

Keys of ours come from us alone. Keys of known features, by either name that they have had, and keys that steer systemd or a
runtime pass only where `allowed_annotations` of the handler or workload name them. All others are the pod's own words and pass
unchanged to a runtime whose words we know; to one that we do not know pass only those of Kubernetes and those that are
allowed (decision 16). A container's key wins over its pod's; configured defaults fill what neither has.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from criollo.errors import Invalid
from criollo.model.container import Propagation
from criollo.model.pod import NamespaceMode
from criollo.specgen.asked import FORMER
from criollo.specgen.request import SpecRequest
from criollo.specgen.resources import pod_annotations

TERMINATION_GRACE: Final = "io.kubernetes.pod.terminationGracePeriod"

_OURS: Final = (  # never taken from a pod, image or container
    "io.container.",
    "io.kubernetes.cri.",
    "io.kubernetes.cri-o.",
    "krun.",
    "run.oci.",  # crun takes one of them for the seccomp filter, others for files of the host
)
_LISTED: Final = ("cdi.k8s.io/", "io.containers.", "io.katacontainers.", "module.wasm.", "bundle", "org.criu.")
_UNIT: Final = "org.systemd.property."
_EXPLICIT: Final = frozenset({"run.oci.handler"})  # of ours, but an administrator may open it for a handler
_LISTED_DOMAIN: Final = re.compile(r"[a-z0-9.-]+\.crio\.io(/.*)?", re.DOTALL)
_LATER_NAMES: Final = {former: name for name, former in FORMER.items()}
_FORMER_KEY: Final = re.compile(rf"({'|'.join(map(re.escape, _LATER_NAMES))})(?:[/.].*)?", re.DOTALL)
_KUBERNETES: Final = re.compile(r"([a-z0-9-]+\.)*(kubernetes|k8s)\.io")
_UNSAFE_VALUE: Final = re.compile(r"[\s,\x00-\x1f\x7f]")
_PROPAGATIONS: Final = {each: number for number, each in enumerate(Propagation)}  # as the CRI numbers them
_GRACE: Final = re.compile(r"[0-9]{1,10}")


def annotations(request: SpecRequest) -> dict[str, str]:
    """All annotations of one container's spec.

    Raises:
        Invalid: an allowed hypervisor annotation whose value could add another argument.
    """
    return {**given(request), **_own(request)}


def given(request: SpecRequest) -> dict[str, str]:
    """Those that are not ours: configured, the pod's, the container's. Hooks are chosen by them. Raises as `annotations`."""
    allowed = request.defaults.allowed_annotations
    unsafe, listed_only = request.defaults.unsafe_annotations, request.defaults.listed_annotations_only
    return {
        **request.defaults.annotations,
        **permitted(request.pod.config.annotations, allowed, unsafe=unsafe, listed_only=listed_only),
        **permitted(request.config.annotations, allowed, unsafe=unsafe, listed_only=listed_only),
    }


def permitted(
    asked: Mapping[str, str], allowed: Iterable[str], *, unsafe: Sequence[str] = (), listed_only: bool = False
) -> dict[str, str]:
    """What of a pod's annotations may reach the spec; `unsafe` are those that the runtime itself says change what it does.
    With `listed_only` nobody has said so, and what is not Kubernetes' own must be allowed.

    An allowed name covers itself and, after a slash, its variants: `a.crio.io` covers `a.crio.io/web`, never `a.crio.iox`.
    """
    if not asked:
        return {}
    names = frozenset(allowed)
    return {
        key: _checked(key, value)
        for key, value in asked.items()
        if _passes(key, names) and _is_safe(key, names, unsafe) and not (listed_only and _is_foreign(key, names))
    }


def _passes(key: str, allowed: frozenset[str]) -> bool:
    if former := _FORMER_KEY.fullmatch(key):
        return not allowed.isdisjoint((key, former[1], _LATER_NAMES[former[1]]))
    if key in _EXPLICIT:
        return key in allowed
    if key.startswith(_OURS):
        return False
    if key.startswith(_UNIT):
        return key in allowed or _UNIT in allowed
    if key.startswith(_LISTED) or _LISTED_DOMAIN.fullmatch(key):
        name, slash, _ = key.partition("/")
        return not allowed.isdisjoint((key, name, name + slash, FORMER.get(name, name)))
    return True


def _is_safe(key: str, allowed: frozenset[str], unsafe: Sequence[str]) -> bool:
    """Names of the runtime end with a dot where they stand for all that begin so. Source: runtime-spec, features.md."""
    for name in unsafe:
        if key == name or (name.endswith(".") and key.startswith(name)):
            return key in allowed or name in allowed
    return True


def _is_foreign(key: str, allowed: frozenset[str]) -> bool:
    """Neither of Kubernetes nor allowed, by its name, what is before its slash, or a beginning that ends with dot or slash."""
    name, slash, _ = key.partition("/")
    if (slash and _KUBERNETES.fullmatch(name)) or key.startswith("io.kubernetes."):
        return False
    return allowed.isdisjoint((key, name, *(key[: at + 1] for at, char in enumerate(key) if char in "./")))


def _checked(key: str, value: str) -> str:
    if key.startswith("io.katacontainers.") and _UNSAFE_VALUE.search(value):
        raise Invalid(f"annotation {key}", value, "a value without spaces, commas and line breaks")
    return value


def _own(request: SpecRequest) -> dict[str, str]:
    """What runtimes for VMs, hooks and people with the bundle in hand look for.

    Of CRI-O's there are not: CNIResult (kept beside the network, not with the pod), PlatformRuntimePath (one path per handler).
    """
    pod = request.pod
    metadata = pod.config
    kind = "sandbox" if request.is_infra else "container"
    seccomp = request.confinement.seccomp
    found = {
        "io.container.manager": "cri-o",  # tools that look for it know this name
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.container-name": request.config.name,
        "io.kubernetes.cri.image-name": request.image_name,
        "io.kubernetes.cri.sandbox-id": pod.id,
        "io.kubernetes.cri.sandbox-name": metadata.name,
        "io.kubernetes.cri.sandbox-namespace": metadata.namespace,
        "io.kubernetes.cri.sandbox-uid": metadata.uid,
        "io.kubernetes.cri-o.ContainerType": kind,
        "io.kubernetes.cri-o.ContainerID": request.container_id,
        "io.kubernetes.cri-o.ContainerName": request.container_name,
        "io.kubernetes.cri-o.SandboxID": pod.id,
        "io.kubernetes.cri-o.Name": request.config.name,
        "io.kubernetes.cri-o.KubeName": metadata.name,
        "io.kubernetes.cri-o.Namespace": metadata.namespace,
        "io.kubernetes.cri-o.HostName": pod.hostname,
        "io.kubernetes.cri-o.ImageName": request.image_name,
        "io.kubernetes.cri-o.Stdin": "true" if request.config.stdin else "false",
        "io.kubernetes.cri-o.StdinOnce": "true" if request.config.stdin_once else "false",
        "io.kubernetes.cri-o.TTY": "true" if request.config.tty else "false",
        "io.kubernetes.cri-o.LogPath": request.log_path,
        "io.kubernetes.cri-o.RuntimeHandler": pod.handler,
        "io.kubernetes.cri-o.SeccompProfilePath": seccomp.name if seccomp is not None else "Unconfined",
    }
    if request.created_ns:
        found["io.kubernetes.cri-o.Created"] = _rfc3339(request.created_ns)
    found |= {f"io.kubernetes.cri-o.IP.{number}": ip for number, ip in enumerate(pod.ips)}
    found |= _of_pod(request) if request.is_infra else _of_container(request)
    if request.defaults.systemd_cgroups:
        found |= _unit_properties(metadata.annotations.get(TERMINATION_GRACE, ""))
    return {key: value for key, value in found.items() if value}


def _of_container(request: SpecRequest) -> dict[str, str]:
    config = request.config
    volumes = [
        {
            "container_path": each.mount.container_path,
            "host_path": each.source,
            "readonly": each.mount.readonly,
            "recursive_read_only": each.mount.recursive_read_only,
            "propagation": _PROPAGATIONS[each.mount.propagation],
            "selinux_relabel": each.mount.selinux_relabel,
        }
        for each in request.mounts
    ]
    return {
        "io.kubernetes.cri-o.Annotations": _json(config.annotations),
        "io.kubernetes.cri-o.Image": request.image_name,
        "io.kubernetes.cri-o.ImageRef": request.image_id,
        "io.kubernetes.cri-o.ImageRepoDigests": request.image_ref if "@" in request.image_ref else "",
        "io.kubernetes.cri-o.Labels": _json(config.labels),
        "io.kubernetes.cri-o.Metadata": _json({"name": config.name, "attempt": config.attempt}),
        "io.kubernetes.cri-o.MountPoint": request.rootfs,
        "io.kubernetes.cri-o.ResolvPath": request.pod.resolv_conf,
        "io.kubernetes.cri-o.Volumes": _json(volumes),
    }


def _of_pod(request: SpecRequest) -> dict[str, str]:
    pod, config = request.pod, request.pod.config
    shared = config.security.namespaces
    modes = {"network": shared.network, "pid": shared.pid, "ipc": shared.ipc}
    ports = [
        {
            "protocol": each.protocol,
            "container_port": each.container_port,
            "host_port": each.host_port,
            "host_ip": each.host_ip,
        }
        for each in config.ports
    ]
    named = {"name": config.name, "uid": config.uid, "namespace": config.namespace, "attempt": config.attempt}
    return {
        **pod_annotations(config),
        "io.kubernetes.cri-o.Annotations": _json(config.annotations),
        "io.kubernetes.cri-o.CgroupParent": pod.cgroup_parent,
        "io.kubernetes.cri-o.HostNetwork": _bool(shared.network is NamespaceMode.NODE),
        "io.kubernetes.cri-o.HostnamePath": pod.hostname_file,
        "io.kubernetes.cri-o.Labels": _json(config.labels),
        "io.kubernetes.cri-o.Metadata": _json(named),
        "io.kubernetes.cri-o.MountPoint": request.rootfs,
        "io.kubernetes.cri-o.NamespaceOptions": _json({kind: mode for kind, mode in modes.items() if mode}),
        "io.kubernetes.cri-o.PortMappings": _json(ports),
        "io.kubernetes.cri-o.PrivilegedRuntime": _bool(config.security.privileged),
        "io.kubernetes.cri-o.ResolvPath": pod.resolv_conf,
        "io.kubernetes.cri-o.ShmPath": pod.shm,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode("utf-8", "replace")


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _rfc3339(at_ns: int) -> str:
    seconds, rest_ns = divmod(at_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns:09}Z"


def _unit_properties(grace_s: str) -> dict[str, str]:
    """Properties of the scope, in the text form of GVariant; the grace is digits or nothing (CVE-2024-3154)."""
    found = {"org.systemd.property.CollectMode": "'inactive-or-failed'"}
    if _GRACE.fullmatch(grace_s):
        found["org.systemd.property.TimeoutStopUSec"] = f"uint64 {int(grace_s)}000000"
        found["org.systemd.property.DefaultDependencies"] = "true"
    return found
