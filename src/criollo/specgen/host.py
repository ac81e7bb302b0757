"""What the kernel and this node offer to containers: one value, gathered once when the engine opens.

`gather` reads a dozen small files of /proc and /sys through the readers it is given; a file that is absent means that the
kernel lacks the thing. Everything else in this package takes the value.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from criollo.errors import Invalid
from criollo.linux.files import read_limited
from criollo.linux.procfs import kernel_version
from criollo.model.pod import Record
from criollo.oci.runtime_spec import UNLIMITED
from criollo.security import capabilities
from criollo.specgen.rlimits import NAMES

SYS_RESOURCE: Final = "CAP_SYS_RESOURCE"

_CGROUP: Final = "/sys/fs/cgroup"
_CPUS: Final = "/sys/devices/system/cpu"
_LIMIT_LINES: Final = {  # first columns of /proc/PID/limits, proc(5)
    "Max address space": "as",
    "Max core file size": "core",
    "Max cpu time": "cpu",
    "Max data size": "data",
    "Max file size": "fsize",
    "Max file locks": "locks",
    "Max locked memory": "memlock",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max open files": "nofile",
    "Max processes": "nproc",
    "Max resident set": "rss",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
    "Max pending signals": "sigpending",
    "Max stack size": "stack",
}
_LIMIT: Final = re.compile(r"(Max [a-z ]+?)  +(\S+) +(\S+)(?: .*)?")
_HUGEPAGES: Final = re.compile(r"hugepages-([0-9]+)kB")


class HostFacts(Record, frozen=True, kw_only=True):
    """`capabilities` is the daemon's bounding set, `rlimits` its own hard limits by name (UNLIMITED for none)."""

    cgroup_v2: bool
    capabilities: frozenset[str] = frozenset(capabilities.KNOWN)
    oom_score_adj: int = 0
    rlimits: dict[str, int] = {}
    has_swap_accounting: bool = False
    has_pids: bool = True
    hugepage_sizes: tuple[str, ...] = ()  # as the cgroup names them: 2MB, 1GB; empty without the controller
    apparmor: bool = False
    selinux: bool = False
    thermal_paths: tuple[str, ...] = ()  # per-CPU counters that other tenants' load can be read from
    kernel: tuple[int, int] = (0, 0)  # major and minor version
    delegates_cgroups: bool = False  # nobody lifts the limits of a cgroup namespace from within
    has_mqueue: bool = False  # the node has its message queues at /dev/mqueue

    @property
    def may_raise(self) -> bool:
        """Whether hard limits may be raised and out-of-memory scores lowered."""
        return SYS_RESOURCE in self.capabilities


def gather(
    read: Callable[[str], bytes] = lambda path: read_limited(path, 1 << 20), names: Callable[[str], Sequence[str]] = os.listdir
) -> HostFacts:
    """The facts of this host, in a few milliseconds. Safe to repeat; nothing is changed."""
    controllers = _text(read, f"{_CGROUP}/cgroup.controllers")
    status = _fields(_text(read, "/proc/self/status"))
    return HostFacts(
        cgroup_v2=bool(controllers),
        capabilities=capabilities.from_mask(_integer(status.get("CapBnd", ""), 16)),
        oom_score_adj=_integer(_text(read, "/proc/self/oom_score_adj"), 10),
        rlimits=parse_limits(_text(read, "/proc/self/limits")),
        has_swap_accounting=_has_swap(read, names, v2=bool(controllers)),
        has_pids="pids" in controllers.split() or bool(_names(names, f"{_CGROUP}/pids")),
        hugepage_sizes=_hugepages(names) if "hugetlb" in controllers.split() or _names(names, f"{_CGROUP}/hugetlb") else (),
        apparmor=_text(read, "/sys/module/apparmor/parameters/enabled").startswith("Y")
        and bool(_names(names, "/sys/kernel/security/apparmor")),  # securityfs is not there in every container
        selinux=bool(_text(read, "/sys/fs/selinux/enforce")),
        thermal_paths=_thermal(names),
        kernel=kernel_version(_text(read, "/proc/sys/kernel/osrelease")),
        delegates_cgroups=_delegates(_text(read, "/proc/self/mounts")),
        has_mqueue="mqueue" in _names(names, "/dev"),
    )


def _delegates(mounts: str) -> bool:
    """Whether a cgroup2 is mounted with nsdelegate. Source: cgroups(7)."""
    fields = (line.split(" ") for line in mounts.splitlines())
    return any(line[2] == "cgroup2" and "nsdelegate" in line[3].split(",") for line in fields if len(line) > 3)


def parse_limits(text: str) -> dict[str, int]:
    """Hard limits by name from the text of /proc/PID/limits; lines that are not understood are left out."""
    found = {}
    for line in text.splitlines():
        match = _LIMIT.fullmatch(line.rstrip())
        name = _LIMIT_LINES.get(match[1]) if match else None
        if match and name in NAMES and (match[3] == "unlimited" or match[3].isdecimal()):
            found[name] = UNLIMITED if match[3] == "unlimited" else int(match[3])
    return found


def hugepage_name(size_kb: int) -> str:
    """As the hugetlb cgroup names a page size: 2048 is 2MB. Source: kernel, mm/hugetlb_cgroup.c, mem_fmt."""
    if size_kb >= 1 << 20:
        return f"{size_kb >> 20}GB"
    return f"{size_kb >> 10}MB" if size_kb >= 1 << 10 else f"{size_kb}KB"


def _hugepages(names: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    matches = (_HUGEPAGES.fullmatch(name) for name in _names(names, "/sys/kernel/mm/hugepages"))
    return tuple(hugepage_name(size) for size in sorted(int(match[1]) for match in matches if match))


def _has_swap(read: Callable[[str], bytes], names: Callable[[str], Sequence[str]], *, v2: bool) -> bool:
    """Swap accounting shows as a file of the memory controller; on v2 the root group has none, so a child is asked."""
    if not v2:
        return bool(_text(read, f"{_CGROUP}/memory/memory.memsw.limit_in_bytes"))
    own = _text(read, "/proc/self/cgroup").rpartition("::")[2].strip().strip("/")
    groups = [f"{_CGROUP}/{own}" if own else _CGROUP, f"{_CGROUP}/system.slice", f"{_CGROUP}/init.scope"]
    return any("memory.swap.max" in _names(names, group) for group in groups)


def _thermal(names: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    cpus = sorted((name for name in _names(names, _CPUS) if re.fullmatch(r"cpu[0-9]+", name)), key=lambda name: int(name[3:]))
    return tuple(f"{_CPUS}/{cpu}/thermal_throttle" for cpu in cpus if _names(names, f"{_CPUS}/{cpu}/thermal_throttle"))


def _fields(text: str) -> Mapping[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _integer(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        return 0


def _text(read: Callable[[str], bytes], path: str) -> str:
    try:
        return read(path).decode("utf-8", "replace")
    except (OSError, Invalid):
        return ""


def _names(names: Callable[[str], Sequence[str]], path: str) -> set[str]:
    try:
        return set(names(path))
    except OSError:
        return set()
