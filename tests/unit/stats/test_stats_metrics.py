"""Values of metrics of both cgroup versions, from plain directories."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.linux.cgroup import Hierarchies
from criollo.stats import metrics
from criollo.stats.catalogue import GROUPS, METRICS, Value
from criollo.stats.metrics import MetricSource, network_metrics, read_metrics
from criollo.stats.network import Interface

PSI = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n"
ALL = frozenset(GROUPS)


def write(place: Path, files: Mapping[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_text(content)


def told(source: MetricSource, *groups: str) -> dict[tuple[str, ...], int]:
    found = read_metrics(source, frozenset(groups) or ALL)
    assert found is not None
    for each in found:
        assert len(each.labels) == len(METRICS[each.metric].labels)
    return {(each.metric, *each.labels): each.value for each in found}


def version_2(tmp_path: Path) -> MetricSource:
    files = {
        "cpu.stat": "usage_usec 9000000\nuser_usec 5500000\nsystem_usec 3500000\n"
        "nr_periods 7\nnr_throttled 2\nthrottled_usec 4000000\n",
        "memory.current": "1000\n",
        "memory.peak": "1500\n",
        "memory.stat": "anon 300\nfile 600\nkernel 50\nfile_mapped 20\ninactive_file 400\npgfault 7\npgmajfault 1\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
        "memory.swap.current": "60\n",
        "io.stat": "999:7 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
        "hugetlb.2MB.current": "2097152\n",
        "cpu.pressure": PSI,
        "pids.current": "3\n",
        "pids.max": "max\n",
        "cgroup.procs": f"{os.getpid()}\n",
    }
    write(tmp_path / "c1", files)
    return MetricSource(Hierarchies({}, tmp_path), "/c1", os.getpid())


def test_version_2(tmp_path: Path) -> None:
    found = told(version_2(tmp_path), "cpu", "memory", "oom", "diskIO", "hugetlb", "pressure")
    assert found == {
        ("cpu_usage_seconds_total", "total"): 9,
        ("cpu_user_seconds_total",): 5,
        ("cpu_system_seconds_total",): 3,
        ("cpu_cfs_periods_total",): 7,
        ("cpu_cfs_throttled_periods_total",): 2,
        ("cpu_cfs_throttled_seconds_total",): 4,
        ("memory_cache",): 600,
        ("memory_kernel_usage",): 50,
        ("memory_mapped_file",): 20,
        ("memory_failcnt",): 3,
        ("memory_max_usage_bytes",): 1500,
        ("memory_rss",): 300,
        ("memory_swap",): 60,
        ("memory_usage_bytes",): 1000,
        ("memory_working_set_bytes",): 600,
        ("memory_failures_total", "pgfault", "container"): 7,
        ("memory_failures_total", "pgmajfault", "container"): 1,
        ("memory_failures_total", "pgfault", "hierarchy"): 7,
        ("memory_failures_total", "pgmajfault", "hierarchy"): 1,
        ("oom_events_total",): 2,
        ("blkio_device_usage_total", "999:7", "999", "7", "read"): 10,
        ("blkio_device_usage_total", "999:7", "999", "7", "write"): 20,
        ("blkio_device_usage_total", "999:7", "999", "7", "discard"): 0,
        ("fs_reads_bytes_total", "999:7"): 10,
        ("fs_writes_bytes_total", "999:7"): 20,
        ("fs_reads_total", "999:7"): 1,
        ("fs_writes_total", "999:7"): 2,
        ("hugetlb_usage_bytes", "2MB"): 2097152,
        ("pressure_cpu_stalled_seconds_total",): 1,
        ("pressure_cpu_waiting_seconds_total",): 2,
    }


def test_processes_are_counted_with_their_descriptors(tmp_path: Path) -> None:
    found = told(version_2(tmp_path), "process")
    assert found[("processes",)] == 1
    assert found[("threads",)] == 3
    assert found[("threads_max",)] == 0
    assert found[("file_descriptors",)] >= 3
    assert ("sockets",) in found
    assert found[("ulimits_soft", "max_open_files")] > 0


def test_version_1(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb")}
    write(roots["cpu"] / "c1", {"cpu.stat": "nr_periods 7\nnr_throttled 2\nthrottled_time 4000000000\n"})
    acct = {
        "cpuacct.usage": "9000000000\n",
        "cpuacct.usage_user": "5500000000\n",
        "cpuacct.usage_sys": "3500000000\n",
        "cpuacct.usage_percpu": "8000000000 0 1000000000 \n",
    }
    write(roots["cpuacct"] / "c1", acct)
    memory = {
        "memory.usage_in_bytes": "1000\n",
        "memory.max_usage_in_bytes": "1500\n",
        "memory.failcnt": "3\n",
        "memory.kmem.usage_in_bytes": "50\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory.stat": "cache 1\npgfault 6\ntotal_cache 600\ntotal_rss 300\ntotal_mapped_file 20\ntotal_inactive_file 400\n"
        "total_pgfault 7\ntotal_pgmajfault 1\ntotal_swap 60\n",
    }
    write(roots["memory"] / "c1", memory)
    device = "999:7 Read {}\n999:7 Write {}\n999:7 Total 9\nTotal 9\n"
    blkio = {
        "blkio.throttle.io_service_bytes_recursive": device.format(10, 20),
        "blkio.throttle.io_serviced_recursive": device.format(1, 2),
    }
    write(roots["blkio"] / "c1", blkio)
    huge = {"hugetlb.2MB.usage_in_bytes": "0\n", "hugetlb.2MB.max_usage_in_bytes": "4096\n"}
    write(roots["hugetlb"] / "c1", huge)
    found = told(
        MetricSource(Hierarchies(roots, None), "/c1", os.getpid()), "cpu", "memory", "oom", "diskIO", "hugetlb", "pressure"
    )
    assert found[("cpu_usage_seconds_total", "cpu00")] == 8
    assert found[("cpu_usage_seconds_total", "cpu02")] == 1
    assert ("cpu_usage_seconds_total", "cpu01") not in found
    assert found[("cpu_user_seconds_total",)] == 5
    assert found[("cpu_cfs_throttled_seconds_total",)] == 4
    assert found[("memory_cache",)] == 600
    assert found[("memory_failcnt",)] == 3
    assert found[("memory_failures_total", "pgfault", "container")] == 6
    assert found[("memory_failures_total", "pgfault", "hierarchy")] == 7
    assert found[("oom_events_total",)] == 2
    assert found[("blkio_device_usage_total", "999:7", "999", "7", "total")] == 9
    assert found[("fs_writes_bytes_total", "999:7")] == 20
    assert found[("fs_reads_total", "999:7")] == 1
    assert found[("hugetlb_max_usage_bytes", "2MB")] == 4096
    assert not any(name.startswith("pressure") for name, *_ in found)


def test_only_groups_that_were_asked_for_are_read(tmp_path: Path) -> None:
    assert {name for name, *_ in told(version_2(tmp_path), "oom")} == {"oom_events_total"}


def test_a_container_that_is_gone_is_none(tmp_path: Path) -> None:
    assert read_metrics(MetricSource(Hierarchies({}, tmp_path), "/gone", 1), ALL) is None


def test_interfaces_tell_both_ways() -> None:
    found = network_metrics([Interface("eth0", 1, 2, 3, 4, rx_packets=5, rx_dropped=6, tx_packets=7, tx_dropped=8)])
    assert {METRICS[each.metric].group for each in found} == {"network"}
    assert Value("network_receive_packets_dropped_total", ("eth0",), 6) in found
    assert Value("network_transmit_bytes_total", ("eth0",), 3) in found
    assert len(found) == 8


def test_a_device_is_told_by_its_name() -> None:
    for entry in os.scandir("/sys/dev/block"):
        major, minor = map(int, entry.name.split(":"))
        assert metrics._device_name(major, minor) == f"/dev/{os.path.basename(os.readlink(entry.path))}"


@given(st.binary(max_size=200))
def test_any_content_of_io_stat_is_parsed(content: bytes) -> None:
    metrics._io_v2(content)
    metrics._io_v2(b"8:0 " + content)


def test_a_container_with_many_cgroups_costs_no_more_than_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = version_2(tmp_path)
    for number in range(20):
        write(tmp_path / "c1" / str(number), {"cgroup.procs": f"{os.getpid()}\n"})
    monkeypatch.setattr(metrics, "_MAX_CGROUPS", 5)
    assert told(source, "process")["processes",] == 5
