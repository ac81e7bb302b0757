"""Statistics as CRI messages. What the kernel does not tell is absent, not zero."""

from criollo.cri.pb import api_pb2 as pb
from criollo.cri.write import container_metadata
from criollo.model.container import Container
from criollo.stats.cgroup import Pressure, Stalls
from criollo.stats.collect import Sample


def container_stats(value: Container, sample: Sample | None, writable: pb.FilesystemUsage) -> pb.ContainerStats:
    """What a container uses; `sample` is None for one that does not run."""
    stats = pb.ContainerStats(
        attributes=pb.ContainerAttributes(
            id=value.id, metadata=container_metadata(value), labels=value.config.labels, annotations=value.config.annotations
        ),
        writable_layer=writable,
    )
    if sample is not None:
        stats.cpu.CopyFrom(_cpu(sample))
        stats.memory.CopyFrom(_memory(sample))
        if sample.swap_usage_bytes is not None:
            stats.swap.CopyFrom(_swap(sample))
        if sample.io_stalls is not None:
            stats.io.CopyFrom(pb.IoUsage(timestamp=sample.at_ns, psi=_psi(sample.io_stalls)))
    return stats


def _cpu(sample: Sample) -> pb.CpuUsage:
    return pb.CpuUsage(
        timestamp=sample.at_ns,
        usage_core_nano_seconds=_number(sample.cpu_ns),
        usage_nano_cores=_number(sample.nano_cores),
        psi=_psi(sample.cpu_stalls),
    )


def _memory(sample: Sample) -> pb.MemoryUsage:
    return pb.MemoryUsage(
        timestamp=sample.at_ns,
        working_set_bytes=_number(sample.memory_working_set_bytes),
        available_bytes=_number(sample.memory_available_bytes),
        usage_bytes=_number(sample.memory_usage_bytes),
        rss_bytes=_number(sample.memory_rss_bytes),
        page_faults=_number(sample.page_faults),
        major_page_faults=_number(sample.major_page_faults),
        psi=_psi(sample.memory_stalls),
    )


def _swap(sample: Sample) -> pb.SwapUsage:
    return pb.SwapUsage(
        timestamp=sample.at_ns,
        swap_available_bytes=_number(sample.swap_available_bytes),
        swap_usage_bytes=_number(sample.swap_usage_bytes),
    )


def _psi(stalls: Stalls | None) -> pb.PsiStats | None:
    if stalls is None:
        return None
    return pb.PsiStats(Full=_pressure(stalls.full), Some=_pressure(stalls.some))


def _pressure(value: Pressure | None) -> pb.PsiData | None:
    if value is None:
        return None
    return pb.PsiData(Total=value.total_us, Avg10=value.avg10, Avg60=value.avg60, Avg300=value.avg300)


def _number(value: int | None) -> pb.UInt64Value | None:
    return None if value is None else pb.UInt64Value(value=value)
