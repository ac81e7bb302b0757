"""On which CPUs a process may run."""

import contextlib
import os
from collections.abc import Iterable


def pin(pid: int, cpus: Iterable[int]) -> None:
    """Let all threads of a process run on these CPUs only; those that it starts later follow. Gone is success.

    Raises:
        OSError: none of these CPUs is online, or in the process's cpuset.
    """
    wanted = frozenset(cpus)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), wanted)
