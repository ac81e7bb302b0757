"""What a node must not have more of after a test than before it: the leak check of every test with real parts."""

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

OURS = re.compile(r"conmon|crun|runc|criollo")
_LISTEN = "0A"  # a state in /proc/net/tcp


class Snapshot(NamedTuple):
    """Everything a container runtime could leave behind, by name."""

    mounts: frozenset[str]
    namespaces: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    interfaces: frozenset[str]


def snapshot(*, namespaces_dir: Path = Path("/run")) -> Snapshot:
    return Snapshot(_mounts(), _namespaces(namespaces_dir), _cgroups(), _processes(), _interfaces())


def leaked(before: Snapshot, *, namespaces_dir: Path = Path("/run"), limit_s: float = 60) -> dict[str, list[str]]:
    """What is there now and was not before, by kind; waits a while for what the kernel still takes away."""
    return settled(lambda: _difference(before, snapshot(namespaces_dir=namespaces_dir)), limit_s)


def settled(measure: Callable[[], dict[str, list[str]]], limit_s: float) -> dict[str, list[str]]:
    deadline = time.monotonic() + limit_s
    while (found := measure()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _difference(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    kinds = Snapshot._fields
    return {kind: sorted(new) for kind, old, now in zip(kinds, before, after, strict=True) if (new := now - old)}


def _mounts() -> frozenset[str]:
    return frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _namespaces(directory: Path) -> frozenset[str]:
    found = set()
    for kind in ("netns", "ipcns", "utsns", "userns", "pidns"):
        if (directory / kind).is_dir():
            found |= {f"{kind}/{name}" for name in os.listdir(directory / kind)}
    return frozenset(found)


def _cgroups() -> frozenset[str]:
    """Cgroups of containers and pods; one hierarchy's failure to go is seen by name."""
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"{directory}/{name}" for name in names if name.startswith(("crio-", "pod", "criollo"))}
    return frozenset(found)


def _processes() -> frozenset[str]:
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] and OURS.search(os.path.basename(words[0]).decode("utf-8", "replace")):
            found.add(f"{entry} {b' '.join(words)[:200].decode('utf-8', 'replace')}")
    return frozenset(found)


def _interfaces() -> frozenset[str]:
    return frozenset(name for name in os.listdir("/sys/class/net") if name.startswith("veth"))


def held_by(pid: int) -> dict[str, int]:
    """How many descriptors and threads a process has; TCP connections apart, since idle ones are kept for a while."""
    open_now = _targets(pid)
    tcp = len(open_now & _tcp_sockets(pid))
    return {"fds": len(os.listdir(f"/proc/{pid}/fd")) - tcp, "threads": len(os.listdir(f"/proc/{pid}/task")), "tcp": tcp}


def _targets(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _tcp_sockets(pid: int) -> set[str]:
    """Connections; a socket that listens belongs to its process for good."""
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return {f"socket:[{line.split()[9]}]" for line in lines if line.split()[3] != _LISTEN}


def descriptors() -> frozenset[str]:
    """What this process has open, by identity: a number may be used again, an inode is not."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}').removesuffix(' (deleted)')}")
        except OSError:  # the one that listed the directory
            continue
    return frozenset(found)


def opened(before: frozenset[str]) -> list[str]:
    """What is open now and was not. What earlier tests let go of meanwhile is nobody's leak."""
    return sorted(descriptors() - before)


def new_descriptors(before: frozenset[str], *, limit_s: float = 10) -> list[str]:
    """What was opened and stays so: a thread that works meanwhile, such as one that empties a trash, is waited for."""
    return settled(lambda: {"new": new} if (new := opened(before)) else {}, limit_s).get("new", [])


def fork_servers() -> list[int]:
    """Children of this process that are servers of workers; a registry of another test's fixture is a child, too."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += [int(word) for word in Path(f"/proc/self/task/{task}/children").read_text().split()]
    return [pid for pid in found if _is_fork_server(pid)]


def _is_fork_server(pid: int) -> bool:
    """Whether a child is one; within exec it has no command line for a moment, and as a zombie none for ever."""
    try:
        while not (words := Path(f"/proc/{pid}/cmdline").read_bytes()):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
            time.sleep(0.001)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"criollo.workers.main" in words
