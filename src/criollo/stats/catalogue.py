"""The metrics of ListPodSandboxMetrics: their groups, names, texts and labels. All begin with `container_`.

Names and labels are cAdvisor's, so dashboards and alerts made for the kubelet's /metrics/cadvisor go on to work. Values are
whole numbers, because the CRI carries no others: seconds lose their fraction.
Source: CRI v1, Metric; the reference of Kubernetes' resource metrics; CRI-O's groups.
"""

from typing import Final, NamedTuple

BASE_LABELS: Final = ("id", "image", "namespace", "pod", "container")
ALWAYS: Final = ""  # the group that needs not be asked for


class Metric(NamedTuple):
    """What one kind of value means; `labels` come after the base ones. A counter only grows."""

    group: str
    name: str
    help: str
    is_counter: bool
    labels: tuple[str, ...] = ()


class Value(NamedTuple):
    """One value; `labels` belong to those of the metric itself."""

    metric: str
    labels: tuple[str, ...]
    value: int


def _counter(group: str, name: str, text: str, *labels: str) -> Metric:
    return Metric(group, f"container_{name}", text, is_counter=True, labels=labels)


def _gauge(group: str, name: str, text: str, *labels: str) -> Metric:
    return Metric(group, f"container_{name}", text, is_counter=False, labels=labels)


def _network() -> list[Metric]:
    kinds = (("bytes", "Bytes"), ("packets", "Packets"), ("packets_dropped", "Packets dropped"), ("errors", "Errors"))
    ways = (("receive", "while receiving"), ("transmit", "while sending"))
    return [
        _counter("network", f"network_{way}_{kind}_total", f"{what} {when}.", "interface")
        for way, when in ways
        for kind, what in kinds
    ]


def _pressure() -> list[Metric]:
    return [
        _counter("pressure", f"pressure_{resource}_{kind}_seconds_total", f"Time that {who} waited for {resource}.")
        for resource in ("cpu", "memory", "io")
        for kind, who in (("stalled", "all tasks"), ("waiting", "some task"))
    ]


_TABLE: Final = (
    _gauge(ALWAYS, "last_seen", "When the container was last seen, in seconds since the epoch."),
    _counter("cpu", "cpu_user_seconds_total", "Time of processors in user mode."),
    _counter("cpu", "cpu_system_seconds_total", "Time of processors in the kernel."),
    _counter("cpu", "cpu_usage_seconds_total", "Time of processors, of each where the kernel tells.", "cpu"),
    _counter("cpu", "cpu_cfs_periods_total", "Periods with a quota that have passed."),
    _counter("cpu", "cpu_cfs_throttled_periods_total", "Periods in which the quota was used up."),
    _counter("cpu", "cpu_cfs_throttled_seconds_total", "Time that tasks waited for the next period."),
    _gauge("disk", "fs_inodes_free", "Free inodes of the file system of the writable layer."),
    _gauge("disk", "fs_inodes_total", "Inodes of the file system of the writable layer."),
    _gauge("disk", "fs_limit_bytes", "Size of the file system of the writable layer."),
    _gauge("disk", "fs_usage_bytes", "What the writable layer takes."),
    _counter("diskIO", "fs_reads_bytes_total", "Bytes read from a device.", "device"),
    _counter("diskIO", "fs_reads_total", "Reads from a device.", "device"),
    _counter("diskIO", "fs_writes_bytes_total", "Bytes written to a device.", "device"),
    _counter("diskIO", "fs_writes_total", "Writes to a device.", "device"),
    _counter("diskIO", "blkio_device_usage_total", "Bytes to and from a device.", "device", "major", "minor", "operation"),
    _gauge("hugetlb", "hugetlb_usage_bytes", "Huge pages in use.", "pagesize"),
    _gauge("hugetlb", "hugetlb_max_usage_bytes", "The most huge pages that were in use, where the kernel tells.", "pagesize"),
    _gauge("memory", "memory_cache", "Bytes of page cache."),
    _gauge("memory", "memory_rss", "Bytes of anonymous memory."),
    _gauge("memory", "memory_kernel_usage", "Bytes of the kernel's own memory."),
    _gauge("memory", "memory_mapped_file", "Bytes of files that are mapped."),
    _gauge("memory", "memory_swap", "Bytes in swap."),
    _counter("memory", "memory_failcnt", "How often the limit was met."),
    _gauge("memory", "memory_usage_bytes", "Bytes of all memory, whenever it was used last."),
    _gauge("memory", "memory_max_usage_bytes", "The most memory that was in use, where the kernel tells."),
    _gauge("memory", "memory_working_set_bytes", "Memory without file cache that was not used lately."),
    _counter("memory", "memory_failures_total", "Page faults.", "failure_type", "scope"),
    *_network(),
    _counter("oom", "oom_events_total", "Processes killed because memory ran out."),
    _gauge("process", "file_descriptors", "Open file descriptors of all processes."),
    _gauge("process", "processes", "Processes."),
    _gauge("process", "sockets", "Open sockets of all processes."),
    _gauge("process", "threads", "Threads of all processes."),
    _gauge("process", "threads_max", "The most threads there may be; 0: no limit."),
    _gauge("process", "ulimits_soft", "Soft limit of the first process; absent without one.", "ulimit"),
    _gauge("spec", "spec_cpu_period", "Period of the cpu quota in microseconds."),
    _gauge("spec", "spec_cpu_quota", "The quota in microseconds; absent without one."),
    _gauge("spec", "spec_cpu_shares", "Weight among others."),
    _gauge("spec", "spec_memory_limit_bytes", "Limit of memory; 0: none."),
    _gauge("spec", "spec_memory_reservation_limit_bytes", "Memory that is not taken away; 0: none."),
    _gauge("spec", "spec_memory_swap_limit_bytes", "Limit of memory and swap together; 0: none."),
    _gauge("spec", "start_time_seconds", "When the container was created, in seconds since the epoch."),
    *_pressure(),
)

METRICS: Final = {metric.name.removeprefix("container_"): metric for metric in _TABLE}
GROUPS: Final = tuple(dict.fromkeys(metric.group for metric in _TABLE if metric.group))
