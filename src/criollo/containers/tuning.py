"""CPUs that are a container's own, made quiet before its start and what they were after its end.

What is changed of the node, and what it was, is written down first (`containers.tunings`): a daemon that was killed, or that
did not see the end, puts it back at its next start. On cgroup v1 the scheduler is told in the container's own cgroup, which
goes with it; whoever owns those above must have told them too (kernel, admin-guide/cgroup-v1/cpusets.rst, 1.7).
"""

import os
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.containers import irqbalance
from criollo.containers.context import TUNED, Containers
from criollo.containers.tunings import Tunings
from criollo.containers.watch import cgroup_of
from criollo.errors import CriolloError, HostFailed, Unsupported, explain
from criollo.linux import knobs
from criollo.linux.cgroup import Hierarchies, Version
from criollo.linux.knobs import Knob
from criollo.model.container import Container, Tuning
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_CPU: Final = "/sys/devices/system/cpu/cpu{}/{}"
_LATENCY: Final = "power/pm_qos_resume_latency_us"
_GOVERNOR: Final = "cpufreq/scaling_governor"
_GOVERNORS: Final = "cpufreq/scaling_available_governors"
_PARTITION: Final = "cpuset.cpus.partition"
_BALANCED: Final = "cpuset.sched_load_balance"


async def tune(containers: Containers, container: Container, *, root: str = "") -> None:
    """Make the CPUs of a container what it asked for. Safe to repeat; after an error nothing is changed.

    Raises:
        Unsupported, HostFailed: the kernel has no such thing or refused; the message has the file.
    """
    tuning = container.tuning
    if tuning is None:
        return
    cgroup = cgroup_of(containers, container)
    tunings = _tunings(containers)
    if tuning.isolated and containers.hierarchies.version is not Version.V2:
        with explain(f"switch off load balancing of the CPUs of container {container.id}"):
            await threads.files(unbalance, containers.hierarchies, cgroup)
    wanted = {
        **await threads.files(_isolation, containers.hierarchies, tuning, cgroup),
        **await threads.files(wanted_of, tuning, root, containers.irqbalance_config),
    }
    await threads.files(tunings.hold, container.id, wanted)
    log.info("CPUs of a container tuned", container=container.id, cpus=tuning.cpus)
    if tuning.quiet:
        await _rebalance(containers, root)


async def untune(containers: Containers, container: Container) -> None:
    """After the end of a container: what it changed of the node is as before. Trouble is told; the next start tries again."""
    await _release(containers, container.id)
    if container.tuning is not None and container.tuning.quiet:
        await _rebalance(containers)


async def sweep(containers: Containers) -> None:
    """At start: give back what containers hold that have ended or that no row knows."""
    left = {each for each in _tunings(containers).holders() if not _lives(containers, each)}
    for container_id in sorted(left):
        await _release(containers, container_id)
    if left:
        await _rebalance(containers)


async def unbalance_ended(containers: Containers, container: Container) -> None:
    """The cgroup of a container that has ended must not tie the CPUs of others together again (cgroup v1)."""
    if containers.hierarchies.version is not Version.V2:
        try:
            await threads.files(unbalance, containers.hierarchies, cgroup_of(containers, container))
        except OSError as error:
            log.debug("load balancing of a container that ended stays on", container=container.id, error=error)


def unbalance(hierarchies: Hierarchies, cgroup: str) -> None:
    """Switch load balancing off in a cgroup and those right below it, which runtimes make (blocking). Raises OSError."""
    directory = hierarchies.directory("cpuset", cgroup)
    if directory is None:
        raise FileNotFoundError(2, "the node has no cpuset cgroups", _BALANCED)
    below = [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    knobs.write_all({Knob(str(each / _BALANCED)): "0" for each in (*below, directory)})


def wanted_of(tuning: Tuning, root: str, irqbalance_config: str) -> dict[Knob, str]:
    """What a tuning sets outside of cgroups (blocking).

    Raises:
        Unsupported: the node lacks the governor.
    """
    own, quiet = sorted(knobs.parse_list(tuning.cpus)), sorted(knobs.parse_list(tuning.quiet))
    wanted = {Knob(root + knobs.IRQ_AFFINITY, cpu): "0" for cpu in quiet}
    if quiet and irqbalance_config and os.path.isfile(root + irqbalance_config):
        wanted |= {Knob(root + irqbalance_config, cpu): "1" for cpu in quiet}
    if tuning.latency:
        wanted |= {Knob(root + _CPU.format(cpu, _LATENCY)): tuning.latency for cpu in own}
    if tuning.governor:
        for cpu in own:
            _check_governor(tuning.governor, root + _CPU.format(cpu, _GOVERNORS))
        wanted |= {Knob(root + _CPU.format(cpu, _GOVERNOR)): tuning.governor for cpu in own}
    return wanted


def _check_governor(governor: str, path: str) -> None:
    try:
        available = Path(path).read_text("ascii").split()
    except OSError as error:
        raise Unsupported(f"cannot choose governor {governor}: the node has no frequencies to govern ({path})") from error
    if governor not in available:
        raise Unsupported(f"cannot choose governor {governor}: {path} has {', '.join(available)}")


def _isolation(hierarchies: Hierarchies, tuning: Tuning, cgroup: str) -> dict[Knob, str]:
    """On cgroup v2 the CPUs are handed down from the root, then the container's cgroup becomes a partition of its own."""
    if not tuning.isolated or hierarchies.version is not Version.V2:
        return {}
    directory = hierarchies.directory("cpuset", cgroup)
    if directory is None or hierarchies.unified is None:
        raise HostFailed("cannot switch off load balancing: the node has no cgroups")
    above = [each for each in directory.parents if each.is_relative_to(hierarchies.unified) and each != hierarchies.unified]
    own = sorted(knobs.parse_list(tuning.cpus))
    places = (*reversed(above), directory)
    if not (exclusive := directory / knobs.EXCLUSIVE).exists():
        raise Unsupported(f"cannot switch off load balancing: the kernel has no {exclusive}; Linux has it from 6.7 on")
    wanted = {Knob(str(place / knobs.EXCLUSIVE), cpu): "1" for place in places for cpu in own}
    return {**wanted, Knob(str(directory / _PARTITION)): "isolated"}


async def _rebalance(containers: Containers, root: str = "") -> None:
    await irqbalance.rebalance(containers.irqbalance_config, _tunings(containers).cpus_of(root + knobs.IRQ_AFFINITY))


async def _release(containers: Containers, container_id: str) -> None:
    try:
        await threads.files(_tunings(containers).release, container_id)
    except CriolloError as error:
        log.error("CPUs of a container are not as they were", container=container_id, error=error)


def _tunings(containers: Containers) -> Tunings:
    """Opened once; its file is small and in memory."""
    if containers.tunings is None:
        containers.tunings = Tunings(containers.places.runroot / TUNED)
    return containers.tunings


def _lives(containers: Containers, container_id: str) -> bool:
    """One that was being started when the daemon ended may be started yet."""
    found = next((each for each in containers.state.containers if each.id == container_id), None)
    return found is not None and found.is_running
