"""Annotations of the spec: control words of runtimes and hooks, so who may write which one is decided here (threats R5).

Keys of ours come from us alone. Keys of known features, by either name that they have had, and keys that steer systemd or a
runtime pass only where `allowed_annotations` of the handler or workload name them. All others are the pod's own words and pass
unchanged. A container's key wins
over its pod's; configured defaults fill what neither has.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from criollo.errors import Invalid
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
_UNSAFE_VALUE: Final = re.compile(r"[\s,\x00-\x1f\x7f]")
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
    unsafe = request.defaults.unsafe_annotations
    return {
        **request.defaults.annotations,
        **permitted(request.pod.config.annotations, allowed, unsafe=unsafe),
        **permitted(request.config.annotations, allowed, unsafe=unsafe),
    }


def permitted(asked: Mapping[str, str], allowed: Iterable[str], *, unsafe: Sequence[str] = ()) -> dict[str, str]:
    """What of a pod's annotations may reach the spec; `unsafe` are those that the runtime itself says change what it does.

    An allowed name covers itself and, after a slash, its variants: `a.crio.io` covers `a.crio.io/web`, never `a.crio.iox`.
    """
    if not asked:
        return {}
    names = frozenset(allowed)
    return {key: _checked(key, value) for key, value in asked.items() if _passes(key, names) and _is_safe(key, names, unsafe)}


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


def _checked(key: str, value: str) -> str:
    if key.startswith("io.katacontainers.") and _UNSAFE_VALUE.search(value):
        raise Invalid(f"annotation {key}", value, "a value without spaces, commas and line breaks")
    return value


def _own(request: SpecRequest) -> dict[str, str]:
    """What runtimes for VMs, hooks and people with the bundle in hand look for."""
    pod = request.pod
    metadata = pod.config
    kind = "sandbox" if request.is_infra else "container"
    seccomp = request.confinement.seccomp
    found = {
        "io.container.manager": "criollo",
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
    if request.is_infra:
        found |= pod_annotations(metadata)
    if request.defaults.systemd_cgroups:
        found |= _unit_properties(metadata.annotations.get(TERMINATION_GRACE, ""))
    return {key: value for key, value in found.items() if value}


def _unit_properties(grace_s: str) -> dict[str, str]:
    """Properties of the scope, in the text form of GVariant; the grace is digits or nothing (CVE-2024-3154)."""
    found = {"org.systemd.property.CollectMode": "'inactive-or-failed'"}
    if _GRACE.fullmatch(grace_s):
        found["org.systemd.property.TimeoutStopUSec"] = f"uint64 {int(grace_s)}000000"
        found["org.systemd.property.DefaultDependencies"] = "true"
    return found
