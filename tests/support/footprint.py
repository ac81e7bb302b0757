"""What one daemon has on the node, found by its own names: unlike `leaks`, others may work beside it meanwhile."""

import os
import re
from pathlib import Path

from support.daemon import Daemon
from support.leaks import settled

_ID = re.compile(r"[0-9a-f]{64}")
_LEVELS = 4  # below a daemon's place: as deep as anything of ours is named. Deeper is what images and containers brought
# What comes without a pod or a work in progress, and may stay: all else, hidden names above all, is something left.
_MAY_COME = re.compile(
    r"daemon\.log|logs(/.+)?|ipam(/.+)?"  # of the test, of the kubelet, of a plugin (see "addresses")
    r"|root/((state|images)\.db(-wal|-shm)?|ballast|driver|preload\.json|clean\.shutdown(\.supported)?)"
    r"|root/(layers/[0-9a-f]{32}(/.+)?|seals(/[0-9a-f]{32})?|retired|trees|cni(/results)?|kpod)"  # images are a test's own
    r"|run/(crio\.sock|version|seccomp|trust|crun|runc|crun/\.cache(/.+)?)"
)

Footprint = dict[str, frozenset[str]]


def footprint(daemon: Daemon) -> Footprint:
    """By kind: mounts, processes below conmon, cgroups, bridge ports, addresses, files that only work in progress has."""
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
    found = set()
    for directory, directories, names in os.walk(place):
        at = os.path.relpath(directory, place)
        paths = [os.path.normpath(f"{at}/{name}") for name in (*directories, *names)]
        found.update(path for path in paths if not _MAY_COME.fullmatch(path))
        if at.count("/") == _LEVELS - 2:
            directories.clear()
    return frozenset(found)


def _names(directory: Path) -> frozenset[str]:
    return frozenset(os.listdir(directory)) if directory.is_dir() else frozenset()
