"""Processes that run out of descriptors."""

import contextlib
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def free_descriptors(pid: int, count: int) -> Iterator[None]:
    """Leave a process so many descriptors, while the block runs, beside those that it has."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    if pid == os.getpid():
        used = {number for number in used if os.path.lexists(f"/proc/{pid}/fd/{number}")}  # not that of the listing
    limit = free = 0
    while free < count or limit in used:
        free += limit not in used
        limit += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
