"""Lists of CPUs as Linux writes them, and what containers are told of their CPUs. Pure.

Source: kernel, Documentation/admin-guide/cputopology.rst; Go runtime, GOMAXPROCS.
"""

import re
from collections.abc import Iterable
from typing import Final

from criollo.errors import Invalid

SHARES_PER_CPU: Final = 1024  # as kubelet turns a request of cpu into shares
_SHRINKING: Final = ("burstable", "besteffort")  # parts of the names that kubelet gives to cgroups of these QoS classes
_PART: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse(text: str, field: str) -> frozenset[int]:
    """`0-3,8` as numbers; empty text is the empty set.

    Raises:
        Invalid: no such list.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise Invalid(field, text, "a list of CPUs like '0-3,8'")
        found.update(range(first, last + 1))
    return frozenset(found)


def written(cpus: Iterable[int]) -> str:
    """The shortest list: `{0, 1, 2, 8}` is `0-2,8`."""
    parts: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def joined(own: str, shared: str) -> str:
    """The list of the CPUs in either list. Raises Invalid."""
    return written(parse(own, "cpuset_cpus") | parse(shared, "shared_cpuset"))


def gomaxprocs(*, shares: int, quota_us: int, cgroup_parent: str, floor: int) -> int | None:
    """How many threads Go should run at once; None where Go finds out itself or the pod has CPUs of its own.

    Twice what was requested: a request is less than what a container may use while others sleep.
    """
    if floor <= 0 or quota_us > 0 or not any(name in cgroup_parent for name in _SHRINKING):
        return None
    return max(-(-2 * shares // SHARES_PER_CPU), 1, floor)
