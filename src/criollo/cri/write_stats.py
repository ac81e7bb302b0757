"""Statistics as CRI messages, encoded. What the kernel does not tell is absent, not zero.

A list of 100 containers holds 4000 numbers, asked for every few seconds. So what never changes of an object, its attributes,
is encoded once, and the numbers are filled into messages that are made once for each set of numbers that are there.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from criollo.containers.status import Stats
from criollo.cri.encoded import Encoded, nested
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.write import container_metadata, pod_metadata
from criollo.model.container import Container
from criollo.model.pod import Pod
from criollo.pods.stats import DEFAULT_INTERFACE, PodStats
from criollo.stats.cgroup import Pressure, Stalls
from criollo.stats.collect import Sample
from criollo.stats.network import Interface, Network
from criollo.storage.usages import Measured

_CONTAINERS: Final = pb.LinuxPodSandboxStats.CONTAINERS_FIELD_NUMBER
_LINUX: Final = pb.PodSandboxStats.LINUX_FIELD_NUMBER


class StatsWriter:
    """Writes statistics; `mountpoint` names the file system of writable layers. For one thread."""

    def __init__(self, mountpoint: str) -> None:
        self._pods = Encoded[Pod](_pod_attributes)
        self._containers = Encoded[Container](_container_attributes)
        self._forms: dict[tuple[bool, ...], _Form] = {}
        self._writable = pb.ContainerStats(writable_layer=pb.FilesystemUsage())
        self._writable.writable_layer.fs_id.mountpoint = mountpoint

    def container(self, value: Container, stats: Stats) -> bytes:
        """ContainerStats: what a container uses; without the counters of a cgroup for one that does not run."""
        parts = self._containers.item(value) + self._layer(stats.writable)
        return parts if stats.sample is None else parts + self._counters(stats.sample, is_pod=False)

    def pod(self, value: PodStats) -> bytes:
        """PodSandboxStats: what a pod uses, and those of its containers that run."""
        linux = b"" if value.sample is None else self._counters(value.sample, is_pod=True)
        if value.network.interfaces:
            linux += pb.LinuxPodSandboxStats(network=_network(value.network)).SerializeToString()
        linux += b"".join(nested(_CONTAINERS, self.container(container, stats)) for container, stats in value.containers)
        return self._pods.item(value.pod) + nested(_LINUX, linux)

    def _layer(self, measured: Measured | None) -> bytes:
        layer = self._writable.writable_layer
        if measured is None:
            layer.ClearField("used_bytes")
            layer.ClearField("inodes_used")
            layer.timestamp = 0
        else:
            layer.timestamp = measured.at_ns
            layer.used_bytes.value, layer.inodes_used.value = measured.usage
        return self._writable.SerializeToString()

    def _counters(self, sample: Sample, *, is_pod: bool) -> bytes:
        numbers = (
            sample.cpu_ns,
            sample.nano_cores,
            sample.memory_working_set_bytes,
            sample.memory_available_bytes,
            sample.memory_usage_bytes,
            sample.memory_rss_bytes,
            sample.page_faults,
            sample.major_page_faults,
            sample.pids if is_pod else sample.swap_usage_bytes,
            None if is_pod else sample.swap_available_bytes,
        )
        lines = _lines(sample.cpu_stalls) + _lines(sample.memory_stalls) + _lines(sample.io_stalls)
        key = (is_pod, *[each is not None for each in numbers], *[each is not None for each in lines])
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _form(key)
        for message in form.timed:
            message.timestamp = sample.at_ns
        for message, number in zip(form.numbers, numbers, strict=True):
            if number is not None:
                message.value = number
        for message, line in zip(form.stalls, lines, strict=True):
            if line is not None:
                message.Avg10, message.Avg60, message.Avg300, message.Total = line
        encoded: bytes = form.whole.SerializeToString()
        return encoded


class _Form(NamedTuple):
    """A message with its parts at hand, in the order of the numbers."""

    whole: Any
    timed: list[Any]
    numbers: list[Any]
    stalls: list[Any]


def _form(key: Sequence[bool]) -> _Form:
    """The form for these numbers, as `_counters` names them; the others are absent from the message."""
    is_pod = key[0]
    whole: Any = pb.LinuxPodSandboxStats() if is_pod else pb.ContainerStats()
    cpu, memory, io = whole.cpu, whole.memory, whole.io
    numbers = [
        cpu.usage_core_nano_seconds,
        cpu.usage_nano_cores,
        memory.working_set_bytes,
        memory.available_bytes,
        memory.usage_bytes,
        memory.rss_bytes,
        memory.page_faults,
        memory.major_page_faults,
        whole.process.process_count if is_pod else whole.swap.swap_usage_bytes,
        whole.swap.swap_available_bytes if not is_pod else whole.process.process_count,
    ]
    stalls = [line for part in (cpu, memory, io) for line in (part.psi.Some, part.psi.Full)]
    timed = [cpu, memory]
    if any(key[9:11]):
        timed.append(whole.process if is_pod else whole.swap)
    if any(key[-2:]):
        timed.append(io)
    for message, is_there in zip((*numbers, *stalls), key[1:], strict=True):
        if is_there:
            message.SetInParent()
    return _Form(whole, timed, numbers, stalls)


def _lines(stalls: Stalls | None) -> tuple[Pressure | None, Pressure | None]:
    return (None, None) if stalls is None else (stalls.some, stalls.full)


def _pod_attributes(pod: Pod) -> pb.PodSandboxStats:
    config = pod.config
    attributes = pb.PodSandboxAttributes(
        id=pod.id, metadata=pod_metadata(pod), labels=config.labels, annotations=config.annotations
    )
    return pb.PodSandboxStats(attributes=attributes)


def _container_attributes(value: Container) -> pb.ContainerStats:
    config = value.config
    attributes = pb.ContainerAttributes(
        id=value.id, metadata=container_metadata(value), labels=config.labels, annotations=config.annotations
    )
    return pb.ContainerStats(attributes=attributes)


def _network(value: Network) -> pb.NetworkUsage:
    """The first network apart, as kubelet wants it; its name is that of CNI's first interface, else the first there is."""
    at_ns, interfaces = value
    first = next((each for each in interfaces if each.name == DEFAULT_INTERFACE), interfaces[0])
    others = [_interface(each) for each in interfaces if each is not first]
    return pb.NetworkUsage(timestamp=at_ns, default_interface=_interface(first), interfaces=others)


def _interface(value: Interface) -> pb.NetworkInterfaceUsage:
    return pb.NetworkInterfaceUsage(
        name=value.name,
        rx_bytes=pb.UInt64Value(value=value.rx_bytes),
        rx_errors=pb.UInt64Value(value=value.rx_errors),
        tx_bytes=pb.UInt64Value(value=value.tx_bytes),
        tx_errors=pb.UInt64Value(value=value.tx_errors),
    )
