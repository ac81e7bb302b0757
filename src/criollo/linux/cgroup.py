"""Control groups: where pods and containers sit, and making, emptying and removing those places.

    cgroupfs   <parent>/crio-<id>                     the runtime makes it; we make <parent> for the pod
    systemd    a.slice/a-b.slice/crio-<id>.scope      systemd makes both: the slice asked by us, the scope by the runtime

A path here starts with `/` and is the same below every hierarchy: one on version 2, one per controller on version 1,
plus the empty version 2 tree of a hybrid node. Deciding a path is pure; all that touches files is blocking.
Source: kernel, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; systemd.slice(5); OCI runtime-spec, cgroupsPath.
"""

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Self

from criollo.errors import Exhausted, Invalid, refuse_scarce

DEFAULT_PARENT: Final = {"cgroupfs": "/crio", "systemd": "crio.slice"}
_SLICE: Final = re.compile(r"[a-zA-Z0-9:_.\\@]+(?:-[a-zA-Z0-9:_.\\@]+)*\.slice")  # systemd.unit(5), without empty parts
_MAX_PATH: Final = 2048
_MAX_PROCS: Final = 1 << 22
_TRIES: Final = 10


class Driver(StrEnum):
    """Who makes the cgroups; the setting `cgroup_manager`."""

    CGROUPFS = "cgroupfs"
    SYSTEMD = "systemd"


class Place(NamedTuple):
    """A cgroup: as config.json names it (`linux.cgroupsPath`), and its path below every hierarchy."""

    spec_path: str
    path: str


class SliceLimits(NamedTuple):
    """What a slice is held to. Below 0 is no limit, and the usual weight; 0 leaves what is, as does None of swap."""

    memory_bytes: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpu_weight: int = 0
    swap_bytes: int | None = None


class Version(StrEnum):
    V1 = "v1"
    HYBRID = "hybrid"  # controllers on version 1, an empty version 2 tree beside them
    V2 = "v2"


def pod_cgroup(driver: Driver, parent: str) -> Place:
    """Where the containers of a pod sit; `parent` is the CRI's `cgroup_parent`, empty for the default.

    Raises:
        Invalid: no slice for the systemd driver, a slice for cgroupfs, or a path that leads elsewhere.
    """
    parent = parent or DEFAULT_PARENT[driver]
    if len(parent) > _MAX_PATH or not parent.isprintable():
        raise Invalid("cgroup_parent", parent, f"at most {_MAX_PATH} printable characters")
    if driver is Driver.SYSTEMD:
        name = parent.rstrip("/").rpartition("/")[2]
        return Place(name, expand_slice(name))
    parts = [part for part in parent.split("/") if part]
    if ".." in parts or "." in parts:
        raise Invalid("cgroup_parent", parent, "a path without . and ..")
    if parts and parts[-1].endswith(".slice"):
        raise Invalid("cgroup_parent", parent, "a path, not a slice: cgroup_manager is cgroupfs")
    path = "/" + "/".join(parts)
    return Place(path, path)


def driver_of(parent: str, otherwise: Driver = Driver.CGROUPFS) -> Driver:
    """Who made a settled parent: its pod may be older than the configuration. `otherwise` for none."""
    if not parent:
        return otherwise
    return Driver.CGROUPFS if parent.startswith("/") else Driver.SYSTEMD


def container_cgroup(driver: Driver, parent: str, container_id: str, *, prefix: str = "crio") -> Place:
    """The cgroup of a container; `prefix` "crio-conmon" gives its monitor's.

    Raises:
        Invalid: as for `pod_cgroup`.
    """
    pod = pod_cgroup(driver, parent)
    below = pod.path.rstrip("/")
    if driver is Driver.SYSTEMD:
        return Place(f"{pod.spec_path}:{prefix}:{container_id}", f"{below}/{prefix}-{container_id}.scope")
    path = f"{below}/{prefix}-{container_id}"
    return Place(path, path)


def expand_slice(name: str) -> str:
    """The path of a slice: `a-b.slice` lies in `a.slice`.

    Raises:
        Invalid: no name of a slice.
    """
    if name == "-.slice":
        return "/"
    if not _SLICE.fullmatch(name):
        raise Invalid("cgroup_parent", name, "the name of a systemd slice, like kubepods-pod1.slice: cgroup_manager is systemd")
    parts = name.removesuffix(".slice").split("-")
    return "".join("/" + "-".join(parts[: count + 1]) + ".slice" for count in range(len(parts)))


def parent_slice(name: str) -> str:
    """The slice in which a slice lies: `a.slice` for `a-b.slice`, `-.slice` for `a.slice`."""
    above = name.removesuffix(".slice").rpartition("-")[0]
    return f"{above or '-'}.slice"


def parse_proc_cgroup(text: str) -> dict[str, str]:
    """`/proc/PID/cgroup`: controller (or `name=x`; `""` for version 2) to path."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for controller in controllers.split(","):
            if path.startswith("/"):
                found[controller] = path.removesuffix(" (deleted)")
    return found


def of_process(pid: int) -> dict[str, str]:
    """The cgroups of a process by controller, `""` for version 2; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return parse_proc_cgroup(file.read())
    except OSError:
        return {}


class Hierarchies(NamedTuple):
    """The mounted hierarchies of this node. `controllers` is empty on version 2, `unified` None on pure version 1."""

    controllers: Mapping[str, Path]
    unified: Path | None

    @classmethod
    def detect(cls) -> Self:
        """Read the mount table of this process."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return cls.from_mountinfo(file.read())

    @classmethod
    def from_mountinfo(cls, text: str) -> Self:
        controllers: dict[str, Path] = {}
        unified = None
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            fields, kind = before.split(" "), after.split(" ")
            if len(fields) < 6 or len(kind) < 3 or not kind[0].startswith("cgroup"):
                continue
            where = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
            if kind[0] == "cgroup2":
                unified = unified or where
                continue
            for option in kind[2].split(","):
                if option not in ("rw", "ro", "xattr", "noprefix", "clone_children") and not option.startswith(
                    "release_agent="
                ):
                    controllers.setdefault(option, where)
        return cls(controllers, unified)

    @property
    def version(self) -> Version:
        if any(not name.startswith("name=") for name in self.controllers):
            return Version.HYBRID if self.unified else Version.V1
        return Version.V2 if self.unified else Version.V1

    @property
    def is_unified(self) -> bool:
        """One tree for all controllers: version 2 alone."""
        return self.version is Version.V2

    def roots(self) -> list[Path]:
        """Every hierarchy's root, each once (cpu and cpuacct are often one)."""
        return list(dict.fromkeys([*self.controllers.values(), *([self.unified] if self.unified else [])]))

    def directory(self, controller: str, path: str) -> Path | None:
        """Where the files of a controller are for the cgroup `path`; None when no hierarchy has it."""
        root = self.unified if self.version is Version.V2 else self.controllers.get(controller)
        return None if root is None else root / path.lstrip("/")

    def is_frozen(self, path: str) -> bool:
        """Whether the processes of a cgroup are stopped, or being stopped; False where there is none, or no freezer."""
        place = self.directory("freezer", path)
        try:
            if place is None:
                return False
            if self.is_unified:
                return (place / "cgroup.freeze").read_text("ascii").strip() == "1"
            return (place / "freezer.state").read_text("ascii").strip() != "THAWED"
        except OSError:
            return False

    def create(self, path: str) -> None:
        """Make a cgroup and those above it, in every hierarchy, ready to hold containers. Safe to repeat.

        Raises:
            OSError: the kernel refused.
        """
        for root in self.roots():
            for left in reversed(range(_TRIES)):
                try:
                    self._create_in(root, path)
                    break
                except FileNotFoundError:  # somebody has removed one on the way, which was empty until now
                    if not left:
                        raise

    def _create_in(self, root: Path, path: str) -> None:
        place = root
        for part in Path(path.lstrip("/")).parts:
            if self.version is Version.V2:
                _delegate(place)
            place = place / part
            with contextlib.suppress(FileExistsError):
                place.mkdir(0o755)
            if root == self.controllers.get("cpuset"):
                _inherit_cpuset(place)

    def attach(self, path: str, pid: int, *, leave_out: frozenset[str] = frozenset()) -> None:
        """Move a process into an existing cgroup; on version 1 it may stay out of some controllers.

        Raises:
            OSError: the kernel refused.
        """
        spared = {self.controllers[name] for name in leave_out if name in self.controllers}
        for root in self.roots():
            if root not in spared:
                (root / path.lstrip("/") / "cgroup.procs").write_text(str(pid))

    def expect_moves(self) -> None:
        """Let the kernel get ready for processes that are about to be moved between cgroups.

        The first move waits for an RCU grace period, 5 to 15 ms, and those that follow within about as long do not (kernel,
        cgroup_threadgroup_rwsem and kernel/rcu/sync.c). Writing a process to where it is waits the same and moves nothing.
        """
        own = of_process(os.getpid())
        for controller, root in (*self.controllers.items(), ("", self.unified)):
            if root is not None and controller in own:
                with contextlib.suppress(OSError):  # no process may sit in a version 2 cgroup that has others below it
                    (root / own[controller].lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
                return

    def exists(self, path: str) -> bool:
        """Whether any hierarchy has this cgroup."""
        return any((root / path.lstrip("/")).is_dir() for root in self.roots())

    def is_used(self, path: str) -> bool:
        """Whether a cgroup has others below it, or processes in it."""
        places = [root / path.lstrip("/") for root in self.roots()]
        try:
            return any(len(list(_tree(place))) > 1 for place in places) or bool(self.processes(path))
        except Exhausted:
            return True  # who cannot look does not take it for empty

    def processes(self, path: str) -> list[int]:
        """Pids in a cgroup and below it; empty when it does not exist.

        Raises:
            Exhausted: no descriptor is left to look with.
        """
        found: dict[int, None] = {}
        for root in self.roots():
            for directory in _tree(root / path.lstrip("/")):
                found.update(dict.fromkeys(_read_pids(directory / "cgroup.procs")))
        return list(found)

    def kill(self, path: str, *, limit_s: float = 5.0) -> bool:
        """SIGKILL all in a cgroup and below it, until it is empty; False if some are left after `limit_s` seconds.

        Refuses the root. A process that forks while we read is met in the next round. Raises as `processes`.
        """
        _refuse_root(path)
        deadline = time.monotonic() + limit_s
        pause_s = 0.001
        while self._strike(path):
            if time.monotonic() > deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        return True

    def _strike(self, path: str) -> bool:
        """One round of SIGKILL; whether there was somebody."""
        if self.unified is not None and self.version is Version.V2:
            with contextlib.suppress(OSError):
                (self.unified / path.lstrip("/") / "cgroup.kill").write_text("1")
        elif (freezer := self.directory("freezer", path)) is not None:
            with contextlib.suppress(OSError):  # SIGKILL reaches the frozen only after a thaw
                (freezer / "freezer.state").write_text("THAWED")
        pids = [pid for pid in self.processes(path) if pid != os.getpid()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def remove(self, path: str, *, limit_s: float = 2.0) -> bool:
        """Remove a cgroup and all below it from every hierarchy; False while processes still hold one of them.

        Absence is success. The kernel answers EBUSY for a moment after the last process died: retried. Raises as `processes`.
        """
        _refuse_root(path)
        deadline = time.monotonic() + limit_s
        return all([_remove_tree(root / path.lstrip("/"), deadline) for root in self.roots()])

    def drop_if_empty(self, path: str) -> None:
        """Remove a cgroup where nothing is below it or in it; what holds something stays."""
        for root in self.roots():
            with contextlib.suppress(OSError):
                (root / path.lstrip("/")).rmdir()


def _refuse_root(path: str) -> None:
    if not path.strip("/") or ".." in path.split("/"):
        raise Invalid("cgroup", path, "a path below the root")


def _tree(top: Path) -> Iterator[Path]:
    """A cgroup directory and all below it, deepest first; nothing when it is absent."""
    for directory, _, _ in os.walk(top, topdown=False, onerror=_refuse_scarce):
        yield Path(directory)


def _read_pids(file: Path) -> list[int]:
    try:
        content = file.read_text("ascii")
    except OSError as error:  # gone, or a threaded cgroup, which has no process list
        _refuse_scarce(error)
        return []
    return [pid for word in content.split()[:_MAX_PROCS] if (pid := int(word)) > 0]


def _refuse_scarce(error: OSError) -> None:
    refuse_scarce(error, "cannot look into a cgroup")


def _remove_tree(top: Path, deadline: float) -> bool:
    pause_s = 0.001
    while True:
        left = [directory for directory in _tree(top) if not _rmdir(directory)]
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def _rmdir(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def _delegate(directory: Path) -> None:
    """Version 2: let the children of a cgroup have all its controllers, as far as the kernel allows."""
    with contextlib.suppress(OSError):
        wanted = (directory / "cgroup.controllers").read_text().split()
        given = (directory / "cgroup.subtree_control").read_text().split()
        for name in wanted:
            if name not in given:
                with contextlib.suppress(OSError):  # EBUSY: processes sit here; EINVAL: threaded
                    (directory / "cgroup.subtree_control").write_text(f"+{name}")


def _inherit_cpuset(directory: Path) -> None:
    """Version 1: a new cpuset is empty and takes no process until it has cpus and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(OSError):
            if not (directory / name).read_text().strip():
                (directory / name).write_text((directory.parent / name).read_text())
