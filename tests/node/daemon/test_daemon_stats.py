"""Statistics of pods by the real daemon, against what their processes do."""

import socket
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for

MIB = 1 << 20


def stats_of(daemon: Daemon, pod: str) -> Any:
    return daemon.cri.call("PodSandboxStats", pb.PodSandboxStatsRequest(pod_sandbox_id=pod)).stats


def test_pod_counts_what_its_containers_use(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; while :; do :; done"
    container = daemon.run_container(pod, daemon.container_config(image, "sh", "-c", script))
    wait_for(lambda: stats_of(daemon, pod).linux.memory.usage_bytes.value >= 20 * MIB)
    first = stats_of(daemon, pod)
    wait_for(lambda: stats_of(daemon, pod).linux.cpu.usage_nano_cores.value > 1_000_000)
    used = first.linux.cpu.usage_core_nano_seconds.value
    wait_for(lambda: stats_of(daemon, pod).linux.cpu.usage_core_nano_seconds.value > used)  # it runs when it is its turn
    linux = stats_of(daemon, pod).linux
    assert linux.memory.working_set_bytes.value >= 20 * MIB
    assert linux.process.process_count.value >= 1
    assert [each.attributes.id for each in linux.containers] == [container]
    assert linux.containers[0].memory.usage_bytes.value >= 20 * MIB
    assert first.attributes.id == pod
    assert first.attributes.metadata.namespace


def test_network_is_that_of_the_pod(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    before = stats_of(daemon, pod).linux.network.default_interface
    assert before.name == "eth0"
    address = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod)).status.network.ip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        for _ in range(3):
            outside.sendto(bytes(1000), (address, 9))  # nobody listens: the pod answers with an error
    wait_for(lambda: stats_of(daemon, pod).linux.network.default_interface.rx_bytes.value >= before.rx_bytes.value + 3000)
    wait_for(lambda: stats_of(daemon, pod).linux.network.default_interface.tx_bytes.value > before.tx_bytes.value)
    after = stats_of(daemon, pod).linux.network.default_interface
    inside = daemon.output(container, "cat", "/sys/class/net/eth0/statistics/tx_bytes")
    assert after.tx_bytes.value <= int(inside)


def test_lists_and_streams_say_the_same(daemon: Daemon, image: str) -> None:
    pods = [daemon.run_pod(daemon.pod_config(labels={"wanted": word})) for word in ("yes", "yes", "no")]
    for pod in pods:
        daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    wanted = pb.PodSandboxStatsFilter(label_selector={"wanted": "yes"})
    listed = daemon.cri.call("ListPodSandboxStats", pb.ListPodSandboxStatsRequest(filter=wanted)).stats
    streamed = daemon.cri.stream("StreamPodSandboxStats", pb.StreamPodSandboxStatsRequest(filter=wanted))
    assert {each.attributes.id for each in listed} == set(pods[:2])
    assert [each.attributes.id for batch in streamed for each in batch.pod_sandbox_stats] == [
        each.attributes.id for each in listed
    ]
    by_id = pb.ListPodSandboxStatsRequest(filter=pb.PodSandboxStatsFilter(id=pods[2][:12]))
    assert [each.attributes.id for each in daemon.cri.call("ListPodSandboxStats", by_id).stats] == [pods[2]]


def test_host_network_has_no_network_of_its_own(daemon: Daemon) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.network = pb.NODE
    assert not stats_of(daemon, daemon.run_pod(config)).linux.HasField("network")


def test_stopped_pod_has_none_and_spoils_no_list(daemon: Daemon) -> None:
    stopped, running = daemon.run_pod(), daemon.run_pod()
    daemon.stop_pod(stopped)
    listed = daemon.cri.call("ListPodSandboxStats").stats
    assert [each.attributes.id for each in listed] == [running]
    with pytest.raises(grpc.RpcError, match="READY"):
        stats_of(daemon, stopped)
    with pytest.raises(grpc.RpcError) as unknown:
        stats_of(daemon, "f" * 64)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
