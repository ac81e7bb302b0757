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


def kill_tree(pid: int, *, limit_s: float = 5.0) -> None:
    """SIGKILL a process of ours and all that descends from it (blocking; a child of ours stays to be reaped).

    The caller vouches for `pid`: a child that it has not reaped, or one held by a pidfd.
    """
    deadline = time.monotonic() + limit_s
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    while (living := [child for child in descendants(pid) if not _is_dead(child)]) and time.monotonic() < deadline:
        for child in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(_ROUNDS_PAUSE_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_dead(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] in ("Z", "X")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
