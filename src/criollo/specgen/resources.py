"""Cgroup values: what the request limits, as the runtime takes it, for a create and for an update.

A value that was not given stays absent, so an update changes nothing else.
Source: OCI runtime-spec, config-linux.md, Control groups; CRI v1, LinuxContainerResources.
"""

import re
from typing import Final

import msgspec

from criollo.errors import Invalid
from criollo.model.pod import HugepageLimit, PodConfig, Resources
from criollo.oci import runtime_spec
from criollo.specgen.host import HostFacts

_CPUSET: Final = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_UNIFIED: Final = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")
_MAX: Final = (1 << 63) - 1


def limits(asked: Resources, *, host: HostFacts, min_memory_bytes: int = 0) -> runtime_spec.Resources:
    """Cpu, memory, huge pages and raw cgroup v2 files.

    On version 1 "no quota" is left out, which is what a new cgroup has: crun 1.8 writes it without its sign.

    Raises:
        Invalid: out of range, a memory limit below `min_memory_bytes` or above the swap limit, a page size this host
            lacks, or `unified` on cgroup v1.
    """
    return runtime_spec.Resources(
        cpu=_cpu(asked, host),
        memory=_memory(asked, host, min_memory_bytes),
        hugepage_limits=_hugepages(asked.hugepage_limits, host.hugepage_sizes),
        unified=_unified(asked.unified, host),
    )


def resources_update(asked: Resources, *, host: HostFacts, min_memory_bytes: int = 0) -> bytes:
    """The JSON that `runtime update -r -` reads. Raises what `limits` raises."""
    return runtime_spec.encode(limits(asked, host=host, min_memory_bytes=min_memory_bytes))


def pids(limit: int, host: HostFacts) -> runtime_spec.Pids | None:
    """None for no limit of ours: crun before 1.9 does not take -1."""
    return runtime_spec.Pids(limit=limit) if limit > 0 and host.has_pids else None


def as_cri(value: Resources) -> dict[str, object]:
    """The fields that are given, under the names that the CRI has for them, as JSON documents of other runtimes show them."""
    limits = [{"page_size": each.page_size, "limit": each.limit_bytes} for each in value.hugepage_limits]
    found: dict[str, object] = {
        "cpu_period": value.cpu_period_us,
        "cpu_quota": value.cpu_quota_us,
        "cpu_shares": value.cpu_shares,
        "memory_limit_in_bytes": value.memory_limit_bytes,
        "oom_score_adj": value.oom_score_adj,
        "cpuset_cpus": value.cpuset_cpus,
        "cpuset_mems": value.cpuset_mems,
        "hugepage_limits": limits,
        "unified": value.unified,
        "memory_swap_limit_in_bytes": value.memory_swap_limit_bytes,
    }
    return {name: each for name, each in found.items() if each}


def pod_annotations(pod: PodConfig) -> dict[str, str]:
    """What a runtime that runs pods as machines needs to know of their size: overhead and the sum of the containers."""
    found: dict[str, str] = {}
    for kind, name, value in (("Overhead", "overhead", pod.overhead), ("Resources", "resources", pod.resources)):
        if value is not None:
            text = msgspec.json.encode(as_cri(value)).decode()
            found |= {f"pod-linux-{name}.crio.io": text, f"io.kubernetes.cri-o.PodLinux{kind}": text}
    return found


def _cpu(asked: Resources, host: HostFacts) -> runtime_spec.Cpu | None:
    unlimited = -1 if host.cgroup_v2 else None
    cpu = runtime_spec.Cpu(
        shares=_positive(asked.cpu_shares, "resources.cpu_shares"),
        quota=unlimited if asked.cpu_quota_us == -1 else _positive(asked.cpu_quota_us, "resources.cpu_quota"),
        period=_positive(asked.cpu_period_us, "resources.cpu_period"),
        cpus=_cpuset(asked.cpuset_cpus, "resources.cpuset_cpus"),
        mems=_cpuset(asked.cpuset_mems, "resources.cpuset_mems"),
    )
    return None if cpu == runtime_spec.Cpu() else cpu


def _memory(asked: Resources, host: HostFacts, min_memory_bytes: int) -> runtime_spec.Memory | None:
    limit, swap = asked.memory_limit_bytes, asked.memory_swap_limit_bytes
    field = "resources.memory_limit_in_bytes"
    if limit == -1:
        return runtime_spec.Memory(limit=-1, swap=-1 if host.has_swap_accounting else None)
    if _positive(limit, field) is None:
        return None
    if limit < min_memory_bytes:
        raise Invalid(field, limit, f"at least {min_memory_bytes}: set memory limit {limit} too low (container_min_memory)")
    if swap < -1 or 0 < swap < limit:
        raise Invalid(
            "resources.memory_swap_limit_in_bytes",
            swap,
            f"-1, or at least {limit}: memory swap limit ({swap}) cannot be lower than memory limit ({limit})",
        )
    return runtime_spec.Memory(limit=limit, swap=(swap or limit) if host.has_swap_accounting else None)


def _hugepages(asked: tuple[HugepageLimit, ...], sizes: tuple[str, ...]) -> tuple[runtime_spec.HugepageLimit, ...]:
    """Without the controller there is nothing to limit; a size the host lacks may only be limited to zero."""
    found = []
    for entry in asked:
        if not 0 <= entry.limit_bytes < 1 << 64:
            raise Invalid("resources.hugepage_limits.limit", entry.limit_bytes, "a number of bytes")
        if entry.page_size in sizes:
            found.append(runtime_spec.HugepageLimit(page_size=entry.page_size, limit=entry.limit_bytes))
        elif sizes and entry.limit_bytes:
            raise Invalid("resources.hugepage_limits.page_size", entry.page_size, f"one of {', '.join(sizes)}")
    return tuple(found)


def _unified(asked: dict[str, str], host: HostFacts) -> dict[str, str]:
    if asked and not host.cgroup_v2:
        raise Invalid("resources.unified", sorted(asked), "nothing: this host has cgroup v1")
    for name, value in asked.items():
        if _UNIFIED.fullmatch(name) is None or name.startswith("cgroup."):
            raise Invalid("resources.unified", name, "a controller's file, such as memory.high")
        if "\0" in value:
            raise Invalid(f"resources.unified {name}", value, "text without NUL")
    return dict(asked)


def _positive(value: int, field: str) -> int | None:
    if not 0 <= value <= _MAX:
        raise Invalid(field, value, "a number that is not negative; 0 for none")
    return value or None


def _cpuset(text: str, field: str) -> str:
    if text and _CPUSET.fullmatch(text) is None:
        raise Invalid(field, text, "numbers and ranges, such as 0-3,5")
    return text
