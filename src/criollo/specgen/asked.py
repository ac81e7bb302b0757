"""Annotations that are wishes to us: found by the name of today, or by the one that CRI-O gave it first.

A wish counts only where `allowed_annotations` of the handler name it, by either name. Pure.
"""

from collections.abc import Collection, Mapping
from typing import Final

FORMER: Final = {  # cri-o, pkg/annotations/v2
    "cgroup2-mount-hierarchy-rw.crio.io": "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw",
    "devices.crio.io": "io.kubernetes.cri-o.Devices",
    "disable-fips.crio.io": "io.kubernetes.cri-o.DisableFIPS",
    "link-logs.crio.io": "io.kubernetes.cri-o.LinkLogs",
    "platform-runtime-path.crio.io": "io.kubernetes.cri-o.PlatformRuntimePath",
    "pod-linux-overhead.crio.io": "io.kubernetes.cri-o.PodLinuxOverhead",
    "pod-linux-resources.crio.io": "io.kubernetes.cri-o.PodLinuxResources",
    "seccomp-notifier-action.crio.io": "io.kubernetes.cri-o.seccompNotifierAction",
    "seccomp-profile.crio.io": "seccomp-profile.kubernetes.cri-o.io",
    "shm-size.crio.io": "io.kubernetes.cri-o.ShmSize",
    "spoofed.crio.io": "io.kubernetes.cri-o.Spoofed",
    "try-skip-volume-selinux-label.crio.io": "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel",
    "umask.crio.io": "io.kubernetes.cri-o.umask",
    "unified-cgroup.crio.io": "io.kubernetes.cri-o.UnifiedCgroup",
    "userns-mode.crio.io": "io.kubernetes.cri-o.userns-mode",
}


def find(annotations: Mapping[str, str], name: str, allowed: Collection[str], *, of: str = "") -> str | None:
    """The value of a wish, None where it is not made or not allowed; `of` asks for its variant `name/of`."""
    names = (name, FORMER[name]) if name in FORMER else (name,)
    keys = [f"{each}/{of}" if of else each for each in names]
    if not any(each in allowed for each in (*names, *keys)):
        return None
    return next((annotations[key] for key in keys if key in annotations), None)
