"""Process trees: who descends from a process, and ending a whole tree.

For programs that start others and hang. A tree is killed from below while its root is stopped: children whose parent
died fall to the nearest subreaper above, so the root goes last.
"""

import contextlib
import os
import signal
import time
from typing import Final

_ROUNDS_PAUSE_S: Final = 0.002


def children(pid: int) -> list[int]:
    """Direct children of all threads of a process; empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
            found += [int(word) for word in file.read().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All that descend from a process, parents before their children."""
    found: list[int] = []
    queue = [pid]
    while queue:
        below = [child for child in children(queue.pop(0)) if child not in found]
        found += below
        queue += below
    return found


def parent(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def is_at_rest(pid: int) -> bool:
    """Whether all threads of a process wait for something, or it is gone."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    return not any((fields := _stat(f"{pid}/task/{thread}")) and fields[0] in ("R", "D") for thread in threads)


def kill_below(pid: int, *, anyway: bool = False) -> None:
    """SIGKILL all that descends from a process once they stand still, for who forks as it is killed leaves a child behind.

    To be repeated until nobody is left; `anyway`: whether they stand still or not.
    """
    found = descendants(pid)
    for each in found:
        _signal(each, signal.SIGSTOP)
    if anyway or (all(_stands(each) for each in found) and descendants(pid) == found):
        for each in found:
            _signal(each, signal.SIGKILL)


def kill_tree(pid: int, *, limit_s: float = 5.0) -> None:
    """SIGKILL a process of ours and all that descends from it (blocking; a child of ours stays to be reaped).

    The caller vouches for `pid`: a child that it has not reaped, or one held by a pidfd.
    """
    deadline = time.monotonic() + limit_s
    _signal(pid, signal.SIGSTOP)
    while (living := [child for child in descendants(pid) if not _is_dead(child)]) and time.monotonic() < deadline:
        for child in living:
            _signal(child, signal.SIGKILL)
        time.sleep(_ROUNDS_PAUSE_S)
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_dead(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] in ("Z", "X")


def _stands(pid: int) -> bool:
    """Stopped, or dead."""
    fields = _stat(pid)
    return not fields or fields[0] in ("T", "t", "Z", "X")


def _stat(pid: int | str) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
