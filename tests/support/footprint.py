"""What one daemon has on the node, found by its own names: unlike `leaks`, others may work beside it meanwhile."""

import os
import re
from pathlib import Path

from support.daemon import Daemon
from support.leaks import settled

_ID = re.compile(r"[0-9a-f]{64}")
_DIRECTORIES = ("run/containers", "run/pods", "run/exits", "run/attach", "run/crun", "run/runc", "root/rootfs", "root/staging")
_NAMESPACES = ("run/netns", "run/ipcns", "run/utsns", "run/userns", "run/pidns")

Footprint = dict[str, frozenset[str]]


def footprint(daemon: Daemon) -> Footprint:
    """By kind: mounts, processes below conmon, cgroups, bridge ports, addresses, files named by an id."""
    return {
        "mounts": _mounts(daemon.place),
        "processes": _processes(daemon.place),
        "cgroups": _cgroups(set(_ID.findall(daemon.log()))),
        "ports": _names(Path("/sys/class/net") / daemon.bridge / "brif"),
        "addresses": frozenset(name for name in _names(daemon.place / "ipam/test") if name[0].isdigit()),
        "files": _files(daemon.place),
    }


def left(daemon: Daemon, before: Footprint, limit_s: float = 60) -> dict[str, list[str]]:
    """What there is now and was not before, after a while for what the kernel and the trash still take away."""

    def grown() -> dict[str, list[str]]:
        now = footprint(daemon)
        return {kind: sorted(new) for kind, old in before.items() if (new := now[kind] - old)}

    return settled(grown, limit_s)


def _mounts(place: Path) -> frozenset[str]:
    targets = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return frozenset(target for target in targets if target.startswith(str(place)))


def _processes(place: Path) -> frozenset[str]:
    found = set()
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if os.path.basename(words[0]) in ("conmon", "crun", "runc") and str(place) in " ".join(words):
            found.add(f"{entry} {' '.join(words)[:200]}")
    return frozenset(found)


def _cgroups(ids: set[str]) -> frozenset[str]:
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"{directory}/{name}" for name in names if set(_ID.findall(name)) & ids}
    return frozenset(found)


def _files(place: Path) -> frozenset[str]:
    found = {f"{directory}/{name}" for directory in _DIRECTORIES for name in _names(place / directory)}
    found |= {f"{directory}/{name}" for directory in _NAMESPACES for name in _names(place / directory)}
    return frozenset(found | {f"cni/{name}" for name in _names(place / "root/cni/results")})


def _names(directory: Path) -> frozenset[str]:
    return frozenset(os.listdir(directory)) if directory.is_dir() else frozenset()
