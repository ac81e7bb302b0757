"""UpdateContainerResources: new limits for a container that lives, all of them or none."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.containers.context import Containers
from criollo.containers.status import find_container
from criollo.containers.watch import watched
from criollo.errors import CriolloError, HostFailed, WrongState, explain
from criollo.linux import limits
from criollo.linux.cgroup import Hierarchies, Version
from criollo.model.container import Container, ContainerState
from criollo.model.moves import may_become
from criollo.model.pod import HugepageLimit, Resources
from criollo.specgen import cpus
from criollo.specgen.process import oom_score
from criollo.specgen.resources import resources_update
from criollo.stats.opened import SUBGROUP, read_once
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


async def update_resources(containers: Containers, container_id: str, resources: Resources) -> None:
    """Change the limits of a created or running container; what is not given stays. After a failure all is as before.

    An update that a crash cuts is in the row, and repeated by recovery.

    Raises:
        Invalid: a value the kernel or the handler's minimum forbids; the message names the field.
        WrongState: the container has ended, or uses more memory than it may have then.
        ToolFailed, HostFailed: the runtime or the kernel refused.
    Source: CRI v1, UpdateContainerResources.
    """
    container = find_container(containers, container_id)
    async with containers.locks.hold(container.id):
        container = find_container(containers, container.id)
        may_become("container", container.id, container.state, ContainerState.EXITED)  # it lives, as long as it can exit
        resources = lasting(container, resources)
        merged = merge(container.resources, resources)
        document = resources_update(
            changed(merged, resources), host=containers.host, min_memory_bytes=_least(containers, container, resources)
        )
        scores = _Scores(*(oom_score(each.oom_score_adj, containers.host)[0] for each in (container.resources, merged)))
        containers.state.containers.keep(msgspec.structs.replace(container, updating=resources))
        kept = container.resources
        try:
            await _apply(containers, container, resources, document, scores)
            kept = merged
        finally:
            current = containers.state.container(container.id)  # it may have exited meanwhile
            containers.state.containers.keep(msgspec.structs.replace(current, resources=kept, updating=None))
    log.info("container resources updated", container=container.id)


def lasting(container: Container, asked: Resources) -> Resources:
    """The update with what the container has for good: kubelet knows nothing of shared CPUs, and takes them away with each.

    Raises:
        Invalid: `cpuset_cpus` is no list.
    """
    given = asked
    if container.shared_cpus and asked.cpuset_cpus:
        given = msgspec.structs.replace(given, cpuset_cpus=cpus.joined(asked.cpuset_cpus, container.shared_cpus))
    if container.no_cpu_quota and asked.cpu_quota_us > 0:
        given = msgspec.structs.replace(given, cpu_quota_us=-1)
    return given


def merge(old: Resources, new: Resources) -> Resources:
    """The old values with those of the new ones that were given (not zero, not empty).

    A limit of memory and swap together that is not given follows that of memory, where the two were one, and is never below.
    """
    given = {name: value for name in Resources.__struct_fields__ if (value := getattr(new, name))}
    if "unified" in given:
        given["unified"] = {**old.unified, **new.unified}
    if "hugepage_limits" in given:
        given["hugepage_limits"] = _by_size((*old.hugepage_limits, *new.hugepage_limits))
    if new.memory_limit_bytes and not new.memory_swap_limit_bytes and old.memory_swap_limit_bytes > 0:
        was_one = old.memory_swap_limit_bytes == old.memory_limit_bytes
        low = new.memory_limit_bytes if was_one else max(old.memory_swap_limit_bytes, new.memory_limit_bytes)
        given["memory_swap_limit_bytes"] = -1 if new.memory_limit_bytes < 0 else low
    return msgspec.structs.replace(old, **given)


def changed(merged: Resources, new: Resources) -> Resources:
    """Of the merged values those that an update has to write: what was given, and what makes sense only together with it."""
    names = {name for name in Resources.__struct_fields__ if getattr(new, name)}
    for pair in ({"cpu_quota_us", "cpu_period_us"}, {"memory_limit_bytes", "memory_swap_limit_bytes"}):
        if names & pair:
            names |= pair
    told = {name: getattr(merged, name) for name in names}
    return Resources(**{**told, "unified": new.unified, "hugepage_limits": new.hugepage_limits})


def _by_size(entries: Sequence[HugepageLimit]) -> tuple[HugepageLimit, ...]:
    return tuple({each.page_size: each for each in entries}.values())


def _least(containers: Containers, container: Container, asked: Resources) -> int:
    """What was allowed once may stay, whatever the handler's minimum is by now."""
    return containers.defaults_of(container.handler).min_memory_bytes if asked.memory_limit_bytes else 0


class _Scores(NamedTuple):
    """Out-of-memory scores, as the processes have them and as they shall."""

    old: int
    new: int


async def _apply(containers: Containers, container: Container, asked: Resources, document: bytes, scores: _Scores) -> None:
    runtime = containers.handlers.get(container.handler)
    path, hierarchies = watched(containers, container).cgroup, containers.hierarchies
    before = await threads.files(_look, hierarchies, path, container, asked)
    try:
        if document != b"{}":
            await runtime.update(container.id, document)
        if document != b"{}" or asked.cpu_quota_us < 0:
            with explain(f"set the limits of container {container.id}"):
                await threads.files(_set_rest, hierarchies, path, asked)
        if scores.new != scores.old:
            await threads.files(_set_scores, hierarchies, path, scores)
    except BaseException as error:
        await cleanup(threads.files(limits.put_back, before), what=f"put back the limits of container {container.id}")
        if isinstance(error, CriolloError) and not await threads.files(hierarchies.exists, path):
            raise WrongState("container", container.id, "ended", "a container that lives") from error
        raise


def _look(hierarchies: Hierarchies, path: str, container: Container, asked: Resources) -> limits.Held:
    """Also of the subgroup of a systemd scope, where crun puts processes and limits."""
    refuse_below_use(hierarchies, path, asked.memory_limit_bytes, kind="container", name=container.id)
    places = (path, f"{path}/{SUBGROUP}")
    return {file: held for each in places for file, held in limits.read(hierarchies, each, tuple(asked.unified)).items()}


def _set_rest(hierarchies: Hierarchies, path: str, asked: Resources) -> None:
    """Huge pages and raw files once more: runc leaves them out of an update. And no quota on version 1: crun cannot say it."""
    subgroup = f"{path}/{SUBGROUP}"
    place = subgroup if hierarchies.exists(subgroup) else path
    end = "max" if hierarchies.version is Version.V2 else "limit_in_bytes"
    files = {f"hugetlb.{each.page_size}.{end}": str(each.limit_bytes) for each in asked.hugepage_limits}
    if asked.cpu_quota_us < 0 and hierarchies.version is not Version.V2:
        files["cpu.cfs_quota_us"] = "-1"
    held = limits.read(hierarchies, place, (*files, *asked.unified))
    wanted = {**files, **asked.unified}
    limits.write({file: wanted[file.name] for file in held if file.name in wanted})


def refuse_below_use(hierarchies: Hierarchies, path: str, limit_bytes: int, *, kind: str, name: str) -> None:
    """Version 2 kills for a limit below what cannot be given back at once; what is only cached can (blocking).

    Raises:
        WrongState: the cgroup uses more than the limit.
    """
    used = read_once(hierarchies, path) if limit_bytes > 0 else None
    if used is not None and used.memory is not None and used.memory.working_set > limit_bytes:
        raise WrongState(
            kind,
            name,
            f"using more than that: cannot decrease memory limit to {limit_bytes} bytes: "
            f"current usage is {used.memory.working_set} bytes",
            "a higher limit, or less use first",
        )


def _set_scores(hierarchies: Hierarchies, path: str, scores: _Scores) -> None:
    """Of processes that have the old one; one that has changed its own has its reasons. All of them or none."""
    done: list[int] = []
    for pid in hierarchies.processes(path):
        try:
            if _score(pid) == scores.old:
                _write_score(pid, scores.new)
                done.append(pid)
        except PermissionError:
            log.warning("out-of-memory score stays: lowering it needs CAP_SYS_RESOURCE", pid=pid, wanted=scores.new)
            break
        except OSError as error:
            for each in done:
                with contextlib.suppress(OSError):
                    _write_score(each, scores.old)
            raise HostFailed(f"cannot set oom_score_adj of process {pid} to {scores.new}: {error.strerror}") from error


def _score(pid: int) -> int | None:
    """None of a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text("ascii"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _write_score(pid: int, score: int) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score), "ascii")
