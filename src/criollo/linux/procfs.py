"""Facts about processes and the kernel. A pid is somebody only together with its start time."""

import errno
import os
import re
from typing import Final

from criollo.errors import from_os

_STAT_BYTES: Final = 4096  # the kernel writes the line in one piece
# Where nobody has a number, a thread, a group or a session may have it still: kernels disagree what to say then.
_NO_PROCESS: Final = {errno.ESRCH, errno.EINVAL, errno.ENOENT}
_SCARCE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def start_time(pid: int) -> int | None:
    """Start time in clock ticks since boot; None when there is no such process (a zombie still is one).

    Raises:
        Exhausted: no descriptor is left to look with: nobody may be taken for dead for that.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process runs: same start time, and no zombie. Raises as `start_time`."""
    fields = _stat(pid) if pid > 0 else None
    return fields is not None and int(fields[19]) == started and fields[0] not in ("Z", "X")


def open_pidfd(pid: int, started: int) -> int | None:
    """A pidfd of this very process; None when it has ended. The caller closes it. Raises as `start_time`."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NO_PROCESS:
            return None
        raise _untold(pid, error) from error
    found = False
    try:
        found = is_alive(pid, started)
    finally:
        if not found:
            os.close(fd)
    return fd if found else None


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def kernel_version(release: str | None = None) -> tuple[int, int]:
    """Major and minor number of a kernel's release (`uname -r`), of this one when none is given; zeros for nonsense."""
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", os.uname().release if release is None else release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on: `comm` may hold spaces, parentheses and newlines."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # a third of what a file object costs
    except OSError as error:
        if error.errno in _SCARCE:
            raise _untold(pid, error) from error
        return None
    try:
        return os.read(fd, _STAT_BYTES).decode("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    finally:
        os.close(fd)


def _untold(pid: int, error: OSError) -> Exception:
    return from_os(error, f"cannot see whether process {pid} runs")
