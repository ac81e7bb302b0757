"""Statistics as encoded messages."""

from test_cri_write import make_container, make_pod

from criollo.containers.status import Stats
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.write_stats import StatsWriter
from criollo.model.container import Container
from criollo.pods.stats import PodStats
from criollo.stats.cgroup import Pressure, Stalls
from criollo.stats.collect import Sample
from criollo.stats.network import Interface, Network
from criollo.storage.base import Usage
from criollo.storage.usages import Measured

PRESSURE = Pressure(1.5, 2.5, 3.5, 400)
LAYER = Measured(Usage(10, 11), 7)
FULL = Sample(
    at_ns=7,
    cpu_ns=8,
    nano_cores=9,
    memory_usage_bytes=10,
    memory_working_set_bytes=11,
    memory_available_bytes=0,
    memory_rss_bytes=13,
    page_faults=14,
    major_page_faults=15,
    swap_usage_bytes=16,
    swap_available_bytes=17,
    pids=18,
    cpu_stalls=Stalls(PRESSURE, None),
    memory_stalls=Stalls(PRESSURE, PRESSURE),
    io_stalls=Stalls(PRESSURE, PRESSURE),
)


def container(writer: StatsWriter, sample: Sample | None, layer: Measured | None = LAYER) -> pb.ContainerStats:
    return pb.ContainerStats.FromString(writer.container(make_container(), Stats(sample, layer)))


def number(value: int) -> pb.UInt64Value:
    return pb.UInt64Value(value=value)


def pressure(*, full: bool = True) -> pb.PsiStats:
    line = pb.PsiData(Avg10=1.5, Avg60=2.5, Avg300=3.5, Total=400)
    return pb.PsiStats(Some=line, Full=line if full else None)


def test_container_has_all_that_was_read() -> None:
    stats = container(StatsWriter("/m"), FULL)
    assert stats.attributes.metadata.name == "c"
    assert stats.cpu == pb.CpuUsage(
        timestamp=7, usage_core_nano_seconds=number(8), usage_nano_cores=number(9), psi=pressure(full=False)
    )
    assert stats.memory == pb.MemoryUsage(
        timestamp=7,
        working_set_bytes=number(11),
        available_bytes=number(0),
        usage_bytes=number(10),
        rss_bytes=number(13),
        page_faults=number(14),
        major_page_faults=number(15),
        psi=pressure(),
    )
    assert stats.swap == pb.SwapUsage(timestamp=7, swap_available_bytes=number(17), swap_usage_bytes=number(16))
    assert stats.io == pb.IoUsage(timestamp=7, psi=pressure())
    assert stats.writable_layer == pb.FilesystemUsage(
        timestamp=7, fs_id=pb.FilesystemIdentifier(mountpoint="/m"), used_bytes=number(10), inodes_used=number(11)
    )


def test_what_is_not_known_is_left_out() -> None:
    stats = container(StatsWriter("/m"), Sample(at_ns=7, cpu_ns=8, cpu_stalls=Stalls(some=PRESSURE, full=None)), None)
    assert stats.cpu.usage_core_nano_seconds.value == 8
    assert not stats.cpu.HasField("usage_nano_cores")
    assert not stats.cpu.psi.HasField("Full")
    assert not stats.HasField("swap")
    assert not stats.HasField("io")
    assert not stats.writable_layer.HasField("used_bytes")


def test_numbers_of_one_container_do_not_show_in_the_next() -> None:
    writer = StatsWriter("/m")
    first = container(writer, FULL)
    assert not container(writer, Sample(at_ns=7, cpu_ns=8), None).memory.HasField("usage_bytes")
    assert container(writer, FULL) == first


def test_container_that_does_not_run_has_only_its_layer() -> None:
    stats = container(StatsWriter("/m"), None)
    assert not stats.HasField("cpu")
    assert not stats.HasField("memory")
    assert stats.writable_layer.used_bytes.value == 10


def pod(sample: Sample | None, interfaces: list[Interface], containers: list[tuple[Container, Stats]]) -> pb.PodSandboxStats:
    value = PodStats(make_pod(), sample, Network(5, interfaces), containers)
    return pb.PodSandboxStats.FromString(StatsWriter("/m").pod(value))


def test_pod_has_processes_network_and_its_containers() -> None:
    interfaces = [Interface("net1", 1, 2, 3, 4), Interface("eth0", 5, 6, 7, 8)]
    stats = pod(FULL, interfaces, [(make_container(), Stats(FULL, LAYER)), (make_container(), Stats(None, None))])
    assert stats.attributes.id == make_pod().id
    assert stats.linux.process == pb.ProcessUsage(timestamp=7, process_count=number(18))
    assert stats.linux.memory.rss_bytes.value == 13
    assert stats.linux.io.psi == pressure()
    assert stats.linux.network.timestamp == 5
    assert stats.linux.network.default_interface.name == "eth0"
    assert [(each.name, each.tx_errors.value) for each in stats.linux.network.interfaces] == [("net1", 4)]
    assert stats.linux.containers[0] == container(StatsWriter("/m"), FULL)
    assert len(stats.linux.containers) == 2


def test_pod_without_cgroup_and_network_is_still_told() -> None:
    stats = pod(None, [], [])
    assert not stats.linux.HasField("cpu")
    assert not stats.linux.HasField("network")
    assert stats.HasField("linux")
