"""Annotations of the spec: control words of runtimes and hooks, so who may write which one is decided here (threats R5).

Keys of ours and keys that steer systemd or a runtime come from us alone. Keys of known features pass only where the
handler's `allowed_annotations` name them. All others are the pod's own words and pass unchanged. A container's key wins
over its pod's; configured defaults fill what neither has.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from criollo.errors import Invalid
from criollo.specgen.request import SpecRequest

TERMINATION_GRACE: Final = "io.kubernetes.pod.terminationGracePeriod"

_OURS: Final = (  # never taken from a pod, image or container
    "io.container.",
    "io.kubernetes.cri.",
    "io.kubernetes.cri-o.",
    "krun.",
    "org.systemd.property.",
    "run.oci.",
)
_LISTED: Final = ("cdi.k8s.io/", "io.containers.", "io.katacontainers.", "module.wasm.")
_LISTED_DOMAIN: Final = re.compile(r"[a-z0-9.-]+\.crio\.io(/.*)?", re.DOTALL)
_EXPLICIT: Final = frozenset({"run.oci.handler"})  # of ours, but an administrator may open it for a handler
_UNSAFE_VALUE: Final = re.compile(r"[\s,\x00-\x1f\x7f]")
_GRACE: Final = re.compile(r"[0-9]{1,10}")


def annotations(request: SpecRequest) -> dict[str, str]:
    """All annotations of one container's spec.

    Raises:
        Invalid: an allowed hypervisor annotation whose value could add another argument.
    """
    allowed = request.defaults.allowed_annotations
    asked = {
        **permitted(request.pod.config.annotations, allowed),
        **permitted(request.config.annotations, allowed),
    }
    return {**request.defaults.annotations, **asked, **_own(request)}


def permitted(asked: Mapping[str, str], allowed: Iterable[str]) -> dict[str, str]:
    """What of a pod's annotations may reach the spec.

    An allowed name covers itself and, after a slash, its variants: `a.crio.io` covers `a.crio.io/web`, never `a.crio.iox`.
    """
    names = frozenset(allowed)
    return {key: _checked(key, value) for key, value in asked.items() if _passes(key, names)}


def _passes(key: str, allowed: frozenset[str]) -> bool:
    if key in _EXPLICIT:
        return key in allowed
    if key.startswith(_OURS):
        return False
    if key.startswith(_LISTED) or _LISTED_DOMAIN.fullmatch(key):
        name, slash, _ = key.partition("/")
        return key in allowed or name in allowed or name + slash in allowed
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
        "io.kubernetes.cri-o.TTY": "true" if request.config.tty else "false",
        "io.kubernetes.cri-o.LogPath": request.log_path,
        "io.kubernetes.cri-o.RuntimeHandler": pod.handler,
        "io.kubernetes.cri-o.SeccompProfilePath": seccomp.name if seccomp is not None else "Unconfined",
    }
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
