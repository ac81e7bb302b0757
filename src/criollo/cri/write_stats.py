"""Statistics as CRI messages. What the kernel does not tell is absent, not zero."""

from collections.abc import Sequence

from criollo.cri.pb import api_pb2 as pb
from criollo.cri.write import container_metadata, pod_metadata
from criollo.model.container import Container
from criollo.pods.stats import DEFAULT_INTERFACE, PodStats
from criollo.stats.cgroup import Pressure, Stalls
from criollo.stats.collect import Sample
from criollo.stats.network import Interface


def pod_stats(value: PodStats, containers: Sequence[pb.ContainerStats], *, at_ns: int) -> pb.PodSandboxStats:
    """What a pod uses; `containers` are those of its that run."""
    pod, sample = value.pod, value.sample
    linux = pb.LinuxPodSandboxStats(containers=containers)
    if sample is not None:
        linux.cpu.CopyFrom(_cpu(sample))
        linux.memory.CopyFrom(_memory(sample))
        linux.process.CopyFrom(pb.ProcessUsage(timestamp=sample.at_ns, process_count=_number(sample.pids)))
        if sample.io_stalls is not None:
            linux.io.CopyFrom(pb.IoUsage(timestamp=sample.at_ns, psi=_psi(sample.io_stalls)))
    if value.interfaces:
        linux.network.CopyFrom(_network(value.interfaces, at_ns))
    config = pod.config
    attributes = pb.PodSandboxAttributes(
        id=pod.id, metadata=pod_metadata(pod), labels=config.labels, annotations=config.annotations
    )
    return pb.PodSandboxStats(attributes=attributes, linux=linux)


def _network(interfaces: Sequence[Interface], at_ns: int) -> pb.NetworkUsage:
    """The first network apart, as kubelet wants it; its name is that of CNI's first interface, else the first there is."""
    first = next((each for each in interfaces if each.name == DEFAULT_INTERFACE), interfaces[0])
    others = [_interface(each) for each in interfaces if each is not first]
    return pb.NetworkUsage(timestamp=at_ns, default_interface=_interface(first), interfaces=others)


def _interface(value: Interface) -> pb.NetworkInterfaceUsage:
    return pb.NetworkInterfaceUsage(
        name=value.name,
        rx_bytes=_number(value.rx_bytes),
        rx_errors=_number(value.rx_errors),
        tx_bytes=_number(value.tx_bytes),
        tx_errors=_number(value.tx_errors),
    )


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
