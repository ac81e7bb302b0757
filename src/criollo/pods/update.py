"""UpdatePodSandboxResources: a new size for a pod that runs, of its containers together and of what it costs besides.

cgroup above the containers     who sizes it
made by us                      we: the sum of resources and overhead; of a slice systemd holds it, too
of the client (kubelet)         the client, before or after this call; we only keep what it told

RunPodSandbox sizes a cgroup that it makes in the same way.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.containers.update import refuse_below_use
from criollo.errors import explain
from criollo.linux import limits
from criollo.linux.cgroup import Driver, Hierarchies, SliceLimits, Version, driver_of, pod_cgroup
from criollo.model.moves import may_become
from criollo.model.pod import HugepageLimit, Pod, PodConfig, PodState, Resources, Size
from criollo.pods.context import Pods
from criollo.pods.status import find_pod
from criollo.specgen.resources import limits as checked
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

DEFAULT_PERIOD_US: Final = 100_000  # kernel, kernel/sched/fair.c
_WEIGHTS: Final = 9999  # cpu.weight goes from 1 to 10000, shares from 2 to 262144


async def update_pod(pods: Pods, pod_id: str, *, overhead: Resources | None, resources: Resources | None) -> None:
    """Keep a pod's new size, and apply it where the cgroup is ours; what is None stays. After a failure all is as before.

    An update that a crash cuts is in the row, and repeated by recovery.

    Raises:
        Invalid: a value that cannot be; the message names the field.
        WrongState: the pod is not ready, or uses more memory than it may have then.
        HostFailed: the kernel refused.
    Source: CRI v1, UpdatePodSandboxResources.
    """
    pod = find_pod(pods, pod_id)
    async with pods.locks.hold(pod.id):
        pod = find_pod(pods, pod.id)
        may_become("pod sandbox", pod.id, pod.state, PodState.NOTREADY)  # it is ready, as long as it can cease to be
        given = {name: value for name, value in (("overhead", overhead), ("resources", resources)) if value is not None}
        for value in given.values():
            checked(value, host=pods.containers.host)
        config = msgspec.structs.replace(pod.config, **given)
        if pod.cgroup_made:
            old, new = _size(pods, pod, pod.config), _size(pods, pod, config)
            pods.state.pods.keep(msgspec.structs.replace(pod, updating=Size(overhead=overhead, resources=resources)))
            try:
                await _apply(pods, pod, old, released(old, new))
            except BaseException:
                pods.state.pods.keep(msgspec.structs.replace(pods.state.pod(pod.id), updating=None))
                raise
        pods.state.pods.keep(msgspec.structs.replace(pods.state.pod(pod.id), config=config, updating=None))
    log.info("pod sandbox resources updated", pod=pod.id, applied=pod.cgroup_made)


async def size_new(pods: Pods, pod: Pod, asked: Sequence[Resources]) -> None:
    """Size a cgroup that was just made for a pod, as its request asks.

    Raises:
        Invalid: a value that cannot be; the message names the field.
        HostFailed: the kernel refused.
    """
    for each in asked:
        checked(each, host=pods.containers.host)
    wanted = _size(pods, pod, pod.config)
    path = pod_cgroup(driver_of(pod.cgroup_parent), pod.cgroup_parent).path
    await _set(pods, pod, wanted, files_of(pods.hierarchies, path, wanted))


def total(resources: Resources | None, overhead: Resources | None) -> Resources:
    """What the cgroup above the containers has to hold. Without a limit of the containers there is none for the pod."""
    one, more = resources or Resources(), overhead or Resources()
    period_us = one.cpu_period_us or DEFAULT_PERIOD_US
    extra_quota_us = max(0, more.cpu_quota_us) * period_us // (more.cpu_period_us or DEFAULT_PERIOD_US)
    return Resources(
        cpu_period_us=period_us,
        cpu_quota_us=one.cpu_quota_us + extra_quota_us if one.cpu_quota_us > 0 else -1,
        cpu_shares=one.cpu_shares + more.cpu_shares,
        memory_limit_bytes=one.memory_limit_bytes + max(0, more.memory_limit_bytes) if one.memory_limit_bytes > 0 else -1,
        memory_swap_limit_bytes=_swap(one, more),
        cpuset_cpus=one.cpuset_cpus,
        cpuset_mems=one.cpuset_mems,
        hugepage_limits=_pages(one, more),
        unified=one.unified,
    )


def released(old: Resources, new: Resources) -> Resources:
    """The new size; what had a limit and is not named any more has none, where silence would leave it."""
    named = {each.page_size for each in new.hugepage_limits}
    gone = (each.page_size for each in old.hugepage_limits if each.page_size not in named)
    return msgspec.structs.replace(
        new,
        memory_swap_limit_bytes=new.memory_swap_limit_bytes or (-1 if old.memory_swap_limit_bytes else 0),
        hugepage_limits=(*new.hugepage_limits, *(HugepageLimit(page_size=size, limit_bytes=-1) for size in gone)),
    )


def files_of(hierarchies: Hierarchies, path: str, wanted: Resources) -> dict[Path, str]:
    """The limits as the files of a cgroup take them; what is empty is left alone, as is a controller that is not there."""
    found: dict[tuple[str, str], str] = {}
    cpus = (("cpuset", "cpuset.cpus"), wanted.cpuset_cpus), (("cpuset", "cpuset.mems"), wanted.cpuset_mems)
    if hierarchies.version is Version.V2:
        quota = "max" if wanted.cpu_quota_us < 0 else str(wanted.cpu_quota_us)
        found["cpu", "cpu.max"] = f"{quota} {wanted.cpu_period_us}"
        found["memory", "memory.max"] = _or_max(wanted.memory_limit_bytes)
        if wanted.memory_swap_limit_bytes:
            found["memory", "memory.swap.max"] = _or_max(_swap_alone(wanted))
        if wanted.cpu_shares:
            found["cpu", "cpu.weight"] = str(weight(wanted.cpu_shares))
        found |= {(name.partition(".")[0], name): value for name, value in wanted.unified.items()}
    else:
        found["cpu", "cpu.cfs_period_us"] = str(wanted.cpu_period_us)
        found["cpu", "cpu.cfs_quota_us"] = str(wanted.cpu_quota_us)
        found["memory", "memory.limit_in_bytes"] = str(wanted.memory_limit_bytes)
        if wanted.memory_swap_limit_bytes:
            found["memory", "memory.memsw.limit_in_bytes"] = str(wanted.memory_swap_limit_bytes)
        if wanted.cpu_shares:
            found["cpu", "cpu.shares"] = str(wanted.cpu_shares)
    end, shown = ("max", _or_max) if hierarchies.version is Version.V2 else ("limit_in_bytes", str)
    found |= {("hugetlb", f"hugetlb.{each.page_size}.{end}"): shown(each.limit_bytes) for each in wanted.hugepage_limits}
    found |= {place: value for place, value in cpus if value}
    placed = ((hierarchies.directory(controller, path), name, value) for (controller, name), value in found.items())
    return {directory / name: value for directory, name, value in placed if directory is not None}


def weight(shares: int) -> int:
    """As runtimes and kubelet translate shares of version 1. Source: OCI runtime-spec; KEP-2254."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * _WEIGHTS // 262_142


def _swap(one: Resources, more: Resources) -> int:
    """Memory and swap together: 0 where the containers name no such limit."""
    both = one.memory_swap_limit_bytes
    if not both:
        return 0
    extra = max(0, more.memory_limit_bytes, more.memory_swap_limit_bytes)
    return both + extra if both > 0 and one.memory_limit_bytes > 0 else -1


def _swap_alone(wanted: Resources) -> int:
    """What version 2 and systemd limit; below 0 is no limit."""
    both = wanted.memory_swap_limit_bytes
    return both - max(0, wanted.memory_limit_bytes) if both > 0 else -1


def _pages(one: Resources, more: Resources) -> tuple[HugepageLimit, ...]:
    extra = {each.page_size: each.limit_bytes for each in more.hugepage_limits}
    return tuple(
        HugepageLimit(page_size=each.page_size, limit_bytes=each.limit_bytes + extra.get(each.page_size, 0))
        for each in {each.page_size: each for each in one.hugepage_limits}.values()
    )


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _size(pods: Pods, pod: Pod, config: PodConfig) -> Resources:
    """The total, without what this node cannot count; a container that was freed of the CPU quota frees its pod."""
    found, host = total(config.resources, config.overhead), pods.containers.host
    is_free = any(each.no_cpu_quota for each in pods.state.containers.of_pod(pod.id))
    return msgspec.structs.replace(
        found,
        cpu_quota_us=-1 if is_free else found.cpu_quota_us,
        memory_swap_limit_bytes=found.memory_swap_limit_bytes if host.has_swap_accounting else 0,
        hugepage_limits=tuple(each for each in found.hugepage_limits if each.page_size in host.hugepage_sizes),
    )


async def _apply(pods: Pods, pod: Pod, old: Resources, new: Resources) -> None:
    driver = driver_of(pod.cgroup_parent)
    path = pod_cgroup(driver, pod.cgroup_parent).path
    before = await threads.files(_look, pods.hierarchies, pod, path, new)
    try:
        await _set(pods, pod, new, files_of(pods.hierarchies, path, new))
    except BaseException:
        await cleanup(_set(pods, pod, old, before), what=f"update of pod sandbox {pod.id}")
        raise


async def _set(pods: Pods, pod: Pod, wanted: Resources, files: limits.Held) -> None:
    """systemd is told as well: it would undo what is only in the files when it reads its units again."""
    if driver_of(pod.cgroup_parent) is Driver.SYSTEMD:
        held = SliceLimits(
            memory_bytes=wanted.memory_limit_bytes,
            cpu_quota_us=wanted.cpu_quota_us,
            cpu_period_us=wanted.cpu_period_us,
            cpu_weight=weight(wanted.cpu_shares) if wanted.cpu_shares else -1,
            swap_bytes=_swap_alone(wanted),
        )
        await pods.containers.units.set_limits(pod.cgroup_parent, held)
    with explain(f"set the limits of cgroup {pod.cgroup_parent} of pod sandbox {pod.id}"):
        await threads.files(limits.write, files)


def _look(hierarchies: Hierarchies, pod: Pod, path: str, wanted: Resources) -> limits.Held:
    refuse_below_use(hierarchies, path, wanted.memory_limit_bytes, kind="pod sandbox", name=pod.id)
    return limits.read(hierarchies, path, tuple(wanted.unified))
