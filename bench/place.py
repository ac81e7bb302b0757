"""Where a run happens: a directory with a disk and a tmpfs for each daemon, cgroups, bridges; all gone at the end.

<dir>/images/<image>-gzip/     OCI layouts, kept for the next run        <dir>/disk.ext4   mounted at <dir>/disk
<dir>/registry/                what the registry serves, kept as well    <dir>/run         a tmpfs
<dir>/disk/<daemon>/           the daemon's root                         <dir>/stubs       generated gRPC stubs
<dir>/run/<daemon>/            its run state                             <dir>/logs        of daemons and pods
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DISK_BYTES = 24 << 30  # sparse
CGROUP = "/criollo-bench"
BRIDGE = "crbench"  # how the names of our bridges begin
NETWORK = "bench-"  # how the names of our CNI networks begin
_TOUCH = """
import mmap, sys
with mmap.mmap(-1, int(sys.argv[1])) as memory:
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
"""
KEPT = ("images", "registry", "logs", "lock", "results.json")


class Busy(Exception):
    """Another run uses the directory."""


class Place:
    """The directory of one run; `names` are the daemons."""

    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.directory, self.names = directory, names
        self.disk, self.run, self.logs = directory / "disk", directory / "run", directory / "logs"
        self.stubs, self.images, self.registry = directory / "stubs", directory / "images", directory / "registry"

    def bridge(self, name: str) -> str:
        """The bridge of a daemon's pods."""
        return f"{BRIDGE}{self.names.index(name)}"

    def cgroup(self, name: str) -> str:
        """The cgroup that holds a daemon, all it starts, and its pods; the same path in every hierarchy."""
        return f"{CGROUP}/{name}"

    def accounting(self, name: str) -> Path:
        """The same cgroup where CPU time is counted."""
        return accounting_root() / self.cgroup(name).strip("/")

    def entering(self, name: str) -> list[str]:
        """Words before a command that put it into a cgroup below `accounting`, where the next run finds what is left."""
        group = self.accounting(name) / "daemon"
        group.mkdir(parents=True, exist_ok=True)
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]


@contextlib.contextmanager
def prepared(directory: Path, names: tuple[str, ...]) -> Iterator[Place]:
    """Make everything; afterwards, whatever happened, take it away again, and before that what a killed run has left.

    Raises:
        Busy: another run uses the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    place = Place(directory.resolve(), names)
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another run uses {directory}") from None
        clean(place)
        try:
            _make(place)
            yield place
        finally:
            with deaf():
                clean(place)


def _make(place: Place) -> None:
    for path in (place.disk, place.run, place.logs, place.stubs, place.images, place.registry):
        path.mkdir(exist_ok=True)
    file = place.directory / "disk.ext4"
    with open(file, "wb") as disk:
        disk.truncate(DISK_BYTES)
    options = "lazy_itable_init=0,lazy_journal_init=0"  # nothing is left for the background
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", options, "-O", "has_journal", file], check=True)
    subprocess.run(["mount", "-o", "loop", file, place.disk], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "criollo-bench", place.run], check=True)
    for name in place.names:
        (place.disk / name).mkdir()
        (place.run / name).mkdir(mode=0o711)
    warm_memory()


def warm_memory() -> None:
    """Use most of the free memory once, in a process of its own: behind a page that a virtual machine has never used its host
    has none, and getting one costs whoever is measured first, as CPU time in the kernel.
    """
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    some = int(lines["MemAvailable"].split()[0]) * 1024 * 3 // 4
    subprocess.run([sys.executable, "-c", _TOUCH, str(some)], check=True)


def clean(place: Place) -> None:
    """Take away all that a run makes, but what the next one can use. Safe to repeat."""
    end_processes()
    for target in mounts_below(place.directory):
        subprocess.run(["umount", "-l", target], check=False)
    for bridge in Path("/sys/class/net").glob(f"{BRIDGE}*"):
        subprocess.run(["ip", "link", "delete", bridge.name], check=False, capture_output=True)
    remove_cgroups()
    forget_networks()
    for path in place.directory.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def end_processes() -> None:
    """Kill what still runs in our cgroups: all that a run which was cut has started."""
    deadline = time.monotonic() + 10
    while (pids := _pids(CGROUP)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _pids(cgroup: str) -> set[int]:
    found: set[int] = set()
    for root in hierarchies():
        for top, _, files in os.walk(root / cgroup.strip("/")):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    found |= {int(pid) for pid in (Path(top) / "cgroup.procs").read_text().split()}
    return found


def remove_cgroups() -> None:
    """Remove our cgroups, empty by now, from every hierarchy."""
    for root in hierarchies():
        for top, _, _ in os.walk(root / CGROUP.strip("/"), topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(top)


def forget_networks() -> None:
    """Remove what the plugins and libcni keep of pods that a killed run has left: nat rules, and kept results."""
    listed = subprocess.run(["iptables", "-t", "nat", "-S", "POSTROUTING"], capture_output=True, text=True).stdout
    for words in map(shlex.split, listed.splitlines()):
        if f'name: "{NETWORK}' in " ".join(words):
            for rule in (["-D", *words[1:]], ["-F", words[-1]], ["-X", words[-1]]):
                subprocess.run(["iptables", "-t", "nat", *rule], check=False, capture_output=True)
    results = Path("/var/lib/cni/results")  # libcni's, in containerd
    for path in results.glob(f"{NETWORK}*-eth0"):
        path.unlink(missing_ok=True)
        (results / f"cni-loopback-{path.name.split('-')[-2]}-lo").unlink(missing_ok=True)


def hierarchies() -> list[Path]:
    """Where cgroups are mounted: one place on version 2, one per controller on version 1."""
    words = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(each[1]) for each in words if each[2] in ("cgroup", "cgroup2")]


def accounting_root() -> Path:
    """The hierarchy that counts CPU time: version 1's cpuacct where there is one, else version 2."""
    words = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for each in words:
        if each[2] == "cgroup" and "cpuacct" in each[3].split(","):
            return Path(each[1])
    return next(Path(each[1]) for each in words if each[2] == "cgroup2")


def mounts_below(directory: Path) -> list[str]:
    """Mount points below a directory, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [target for line in reversed(lines) if (target := line.split()[4]).startswith(f"{directory}/")]


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """While cleaning up, Ctrl-C and SIGTERM wait."""
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
