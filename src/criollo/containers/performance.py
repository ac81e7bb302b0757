"""Annotations of performance profiles: what is done of them, and what a person is told of the others.

    cpu-quota.crio.io[/CONTAINER]       disable         no CPU quota for the container and its pod

Only for a container whose CPUs are its own: a guaranteed pod (its cgroup says so), whole CPUs. What the annotation of
CRI-O's high-performance hooks asks for beyond that is not done, and a note says so: the container runs, only slower.
Source: kernel, Documentation/scheduler/sched-bwc.rst.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.shape import Asked, Shape
from criollo.errors import explain
from criollo.linux import limits
from criollo.linux.cgroup import Driver, SliceLimits, Version, driver_of, pod_cgroup
from criollo.model.pod import Pod
from criollo.specgen.asked import FORMER
from criollo.specgen.cpus import SHARES_PER_CPU

CPU_QUOTA: Final = "cpu-quota.crio.io"
NOT_DONE: Final = (
    "cpu-c-states.crio.io",
    "cpu-freq-governor.crio.io",
    "cpu-load-balancing.crio.io",
    "irq-load-balancing.crio.io",
    "platform-runtime-path.crio.io",
)

_OFF: Final = ("disable", "true")
_SHARING: Final = ("burstable", "besteffort")  # parts of the names of cgroups whose pods have no CPUs of their own


def tuned(shape: Shape, asked: Asked, *, cgroup_parent: str) -> Shape:
    """The shape with what allowed annotations ask for, or with a note on why not."""
    notes = [*shape.notes, *(_not_done(name) for name in NOT_DONE if _wish(asked, name))]
    free = _wish(asked, CPU_QUOTA) in _OFF
    if free and not _has_whole_cpus(shape, cgroup_parent):
        notes.append(f"annotation {CPU_QUOTA} has no effect: it is for whole CPUs (cpu_shares) of a guaranteed pod")
        free = False
    resources = msgspec.structs.replace(shape.resources, cpu_quota_us=-1) if free else shape.resources
    return shape._replace(resources=resources, no_cpu_quota=free, notes=tuple(notes))


def not_done_of(allowed: Collection[str]) -> list[str]:
    """Of the annotations that a handler allows those that are not done, by today's names."""
    return [name for name in NOT_DONE if name in allowed or FORMER.get(name) in allowed]


async def lift_quota(containers: Containers, pod: Pod) -> None:
    """Take the CPU quota off the pod's cgroup: a container's own would be held back by it. Safe to repeat.

    Raises:
        HostFailed, Unavailable, TimedOut: the kernel or systemd refused.
    """
    driver, hierarchies = driver_of(pod.cgroup_parent), containers.hierarchies
    if driver is Driver.SYSTEMD:  # it would undo what is only in the file
        await containers.units.set_limits(pod.cgroup_parent, SliceLimits(cpu_quota_us=-1))
    directory = hierarchies.directory("cpu", pod_cgroup(driver, pod.cgroup_parent).path)
    if directory is None:
        return
    name, value = ("cpu.max", "max") if hierarchies.version is Version.V2 else ("cpu.cfs_quota_us", "-1")
    with explain(f"lift the CPU quota of cgroup {pod.cgroup_parent} of pod sandbox {pod.id}"):
        await threads.files(limits.write, {directory / name: value})


def _has_whole_cpus(shape: Shape, cgroup_parent: str) -> bool:
    shares = shape.resources.cpu_shares
    return shares > 0 and shares % SHARES_PER_CPU == 0 and not any(name in cgroup_parent for name in _SHARING)


def _wish(asked: Asked, name: str) -> str:
    return asked.wish(name, of=asked.config.name) or asked.wish(name)


def _not_done(name: str) -> str:
    return f"annotation {name} has no effect: this build does not do what it asks for; see docs/devices.md"
