"""Numbers about processes for metrics: zombies on the node, what one process uses."""

import os
import resource
from typing import NamedTuple


class Usage(NamedTuple):
    """Of one process; `started_s` since the epoch. Zeros for what cannot be read."""

    cpu_s: float
    rss_bytes: int
    virtual_bytes: int
    open_fds: int
    max_fds: int
    started_s: float


def count_defunct() -> int:
    """How many processes have ended and were not waited for. Reads `/proc`: some 15 µs for each process."""
    return sum(_state(name) == b"Z" for name in os.listdir("/proc") if name.isascii() and name.isdigit())


def self_usage(pid: int) -> Usage:
    """What the process uses; best our own."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        user, system, started, virtual, pages = (int(fields[at]) for at in (11, 12, 19, 20, 21))
        open_fds = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError, ValueError):
        return Usage(0.0, 0, 0, 0, 0, 0.0)
    tick = os.sysconf("SC_CLK_TCK")
    return Usage(
        cpu_s=(user + system) / tick,
        rss_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        virtual_bytes=virtual,
        open_fds=open_fds,
        max_fds=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        started_s=_boot_s() + started / tick,
    )


def _state(name: str) -> bytes:
    """The letter after the name in parentheses, which may hold anything."""
    try:
        fd = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096).rpartition(b")")[2][1:2]
    except OSError:
        return b""
    finally:
        os.close(fd)


def _boot_s() -> float:
    try:
        with open("/proc/stat", "rb") as file:
            for line in file:
                if line.startswith(b"btime "):
                    return float(line.split()[1])
    except (OSError, IndexError, ValueError):
        pass
    return 0.0
