"""Annotations of performance profiles: what is done of them, and what a person is told of the others.

    cpu-quota.crio.io[/CONTAINER]           disable                         no CPU quota for the container and its pod
    cpu-load-balancing.crio.io[/CONTAINER]  disable                         the scheduler moves nothing to or from its CPUs
    irq-load-balancing.crio.io[/CONTAINER]  disable, housekeeping           interrupts go to other CPUs (but for its first core)
    cpu-c-states.crio.io                    enable, disable, max_latency:N  how deep its CPUs sleep
    cpu-freq-governor.crio.io               NAME                            who chooses their frequency

Only for a container whose CPUs are its own: a guaranteed pod (its cgroup says so), whole CPUs; elsewhere a note says that
nothing is done. All but the first hold while the container runs: set before its start, put back after its end
(`containers.tuning`).
Source: kernel, Documentation/scheduler/sched-bwc.rst; CRI-O's annotations of these names.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.containers.context import Containers
from criollo.containers.shape import LOAD_BALANCING, Asked, Shape
from criollo.errors import Invalid, explain
from criollo.linux import limits
from criollo.linux.cgroup import Driver, SliceLimits, Version, driver_of, pod_cgroup
from criollo.model.container import Tuning
from criollo.model.pod import Pod
from criollo.specgen import cpus
from criollo.specgen.asked import FORMER
from criollo.specgen.cpus import SHARES_PER_CPU

CPU_QUOTA: Final = "cpu-quota.crio.io"
INTERRUPTS: Final = "irq-load-balancing.crio.io"
C_STATES: Final = "cpu-c-states.crio.io"
GOVERNOR: Final = "cpu-freq-governor.crio.io"
NOT_DONE: Final = ("platform-runtime-path.crio.io",)

_HOUSEKEEPING: Final = "housekeeping"
_LATENCIES: Final = {"enable": "0", "disable": "n/a"}  # Documentation/ABI/testing/sysfs-devices-power
_LATENCY: Final = re.compile(r"max_latency:([1-9][0-9]{0,8})")
_GOVERNOR: Final = re.compile(r"[a-z0-9_-]{1,15}")
_SIBLINGS: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_OFF: Final = ("disable", "true")
_TUNED: Final[Mapping[str, tuple[str, ...]]] = {  # with the values that mean something; none: any does
    LOAD_BALANCING: _OFF,
    INTERRUPTS: (*_OFF, _HOUSEKEEPING),
    C_STATES: (),
    GOVERNOR: (),
}
_SHARING: Final = ("burstable", "besteffort")  # parts of the names of cgroups whose pods have no CPUs of their own


def tuned(shape: Shape, asked: Asked, *, cgroup_parent: str) -> Shape:
    """The shape with what allowed annotations ask for, or with a note on why not. May read /sys.

    Raises:
        Invalid: a value that none of them has, or no CPUs of its own (cpuset_cpus) to do it for.
    """
    notes = [*shape.notes, *(_not_done(name) for name in NOT_DONE if _wish(asked, name))]
    wishes = {name: wish for name, values in _TUNED.items() if (wish := _wish(asked, name)) and wish in (values or (wish,))}
    free = _wish(asked, CPU_QUOTA) in _OFF
    if (free or wishes) and not _has_whole_cpus(shape, cgroup_parent):
        names = [*([CPU_QUOTA] if free else []), *wishes]
        notes += [f"annotation {name} has no effect: it is for whole CPUs (cpu_shares) of a guaranteed pod" for name in names]
        free, wishes = False, {}
    resources = msgspec.structs.replace(shape.resources, cpu_quota_us=-1) if free else shape.resources
    shape = shape._replace(resources=resources, no_cpu_quota=free, notes=tuple(notes))
    return _with_tuning(shape, wishes) if wishes else shape


def _with_tuning(shape: Shape, wishes: Mapping[str, str]) -> Shape:
    own = cpus.parse(shape.resources.cpuset_cpus, "cpuset_cpus") - cpus.parse(shape.shared_cpus, "shared_cpuset")
    if not own:
        raise Invalid(f"annotation {min(wishes)}", wishes[min(wishes)], "a container with CPUs of its own (cpuset_cpus)")
    quiet, env = own, shape.env
    if wishes.get(INTERRUPTS) == _HOUSEKEEPING:
        kept = own & _siblings(min(own))
        quiet, env = own - kept, (*env, ("OPENSHIFT_HOUSEKEEPING_CPUS", cpus.written(kept)))
    tuning = Tuning(
        cpus=cpus.written(own),
        isolated=LOAD_BALANCING in wishes,
        quiet=cpus.written(quiet) if INTERRUPTS in wishes else "",
        latency=parse_latency(wishes[C_STATES]) if C_STATES in wishes else "",
        governor=parse_governor(wishes[GOVERNOR]) if GOVERNOR in wishes else "",
    )
    return shape._replace(env=env, tuning=tuning if tuning != Tuning(cpus=tuning.cpus) else None)


def parse_latency(text: str) -> str:
    """What pm_qos_resume_latency_us is set to for a wish. Raises Invalid."""
    if text in _LATENCIES:
        return _LATENCIES[text]
    if (match := _LATENCY.fullmatch(text)) is None:
        raise Invalid(f"annotation {C_STATES}", text, "'enable', 'disable', or 'max_latency:' and microseconds")
    return match[1]


def parse_governor(text: str) -> str:
    """The name of a governor, which the node may not have. Raises Invalid."""
    if not _GOVERNOR.fullmatch(text):
        raise Invalid(f"annotation {GOVERNOR}", text, "the name of a governor, like 'performance'")
    return text


def _siblings(cpu: int) -> frozenset[int]:
    """The threads of a CPU's core; itself alone where the kernel does not say."""
    try:
        return cpus.parse(Path(_SIBLINGS.format(cpu)).read_text("ascii").strip(), "thread_siblings_list") | {cpu}
    except (OSError, Invalid):
        return frozenset({cpu})


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
