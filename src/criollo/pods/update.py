"""UpdatePodSandboxResources: a new size for a pod that runs, of its containers together and of what it costs besides.

cgroup above the containers     who sizes it
made by us                      we: the sum of resources and overhead; of a slice systemd holds it, too
of the client (kubelet)         the client, before or after this call; we only keep what it told
"""

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
from criollo.model.pod import Pod, PodState, Resources
from criollo.pods.context import Pods
from criollo.pods.status import find_pod
from criollo.specgen.resources import limits as checked
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

DEFAULT_PERIOD_US: Final = 100_000  # kernel, kernel/sched/fair.c
_WEIGHTS: Final = 9999  # cpu.weight goes from 1 to 10000, shares from 2 to 262144


async def update_pod(pods: Pods, pod_id: str, *, overhead: Resources | None, resources: Resources | None) -> None:
    """Keep a pod's new size, and apply it where the cgroup is ours; what is None stays. After a failure all is as before.

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
            old = total(pod.config.resources, pod.config.overhead)
            await _apply(pods, pod, old, total(config.resources, config.overhead))
        pods.state.pods.keep(msgspec.structs.replace(pods.state.pod(pod.id), config=config))
    log.info("pod sandbox resources updated", pod=pod.id, applied=pod.cgroup_made)


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
        cpuset_cpus=one.cpuset_cpus,
        cpuset_mems=one.cpuset_mems,
        unified=one.unified,
    )


def files_of(hierarchies: Hierarchies, path: str, wanted: Resources) -> dict[Path, str]:
    """The limits as the files of a cgroup take them; what is empty is left alone, as is a controller that is not there."""
    found: dict[tuple[str, str], str] = {}
    cpus = (("cpuset", "cpuset.cpus"), wanted.cpuset_cpus), (("cpuset", "cpuset.mems"), wanted.cpuset_mems)
    if hierarchies.version is Version.V2:
        quota = "max" if wanted.cpu_quota_us < 0 else str(wanted.cpu_quota_us)
        found["cpu", "cpu.max"] = f"{quota} {wanted.cpu_period_us}"
        found["memory", "memory.max"] = "max" if wanted.memory_limit_bytes < 0 else str(wanted.memory_limit_bytes)
        if wanted.cpu_shares:
            found["cpu", "cpu.weight"] = str(weight(wanted.cpu_shares))
        found |= {(name.partition(".")[0], name): value for name, value in wanted.unified.items()}
    else:
        found["cpu", "cpu.cfs_period_us"] = str(wanted.cpu_period_us)
        found["cpu", "cpu.cfs_quota_us"] = str(wanted.cpu_quota_us)
        found["memory", "memory.limit_in_bytes"] = str(wanted.memory_limit_bytes)
        if wanted.cpu_shares:
            found["cpu", "cpu.shares"] = str(wanted.cpu_shares)
    found |= {place: value for place, value in cpus if value}
    placed = ((hierarchies.directory(controller, path), name, value) for (controller, name), value in found.items())
    return {directory / name: value for directory, name, value in placed if directory is not None}


def weight(shares: int) -> int:
    """As runtimes and kubelet translate shares of version 1. Source: OCI runtime-spec; KEP-2254."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * _WEIGHTS // 262_142


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
            cpu_weight=weight(wanted.cpu_shares) if wanted.cpu_shares else 0,
        )
        await pods.containers.units.set_limits(pod.cgroup_parent, held)
    with explain(f"set the limits of cgroup {pod.cgroup_parent} of pod sandbox {pod.id}"):
        await threads.files(limits.write, files)


def _look(hierarchies: Hierarchies, pod: Pod, path: str, wanted: Resources) -> limits.Held:
    refuse_below_use(hierarchies, path, wanted.memory_limit_bytes, kind="pod sandbox", name=pod.id)
    return limits.read(hierarchies, path, tuple(wanted.unified))
