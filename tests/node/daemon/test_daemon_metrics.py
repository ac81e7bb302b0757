"""Metrics of pods, collection in the background, and lists while their targets come, go and hang."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cri import Cri, pb
from support.daemon import Daemon, running_daemon, wait_for
from support.dead_mount import dead_mount, needs_fuse
from support.registry import Registry

SETTINGS = {"crio.stats.included_pod_metrics": ["all"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def daemon(registry: Registry, place: Path) -> Iterator[Daemon]:
    with running_daemon(place, registries=registry.registries_conf(), settings=SETTINGS) as running:
        running.pull(registry.reference("busybox"))
        yield running


def running(daemon: Daemon, image: str) -> tuple[str, str]:
    pod = daemon.run_pod(daemon.pod_config("shown"))
    config = daemon.container_config(image, "sleep", "1000", name="sleeper")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    return pod, daemon.run_container(pod, config)


def metrics_of(daemon: Daemon, pod: str) -> Any:
    return next(each for each in daemon.cri.call("ListPodSandboxMetrics").pod_metrics if each.pod_sandbox_id == pod)


def test_every_metric_has_a_descriptor_and_its_labels(daemon: Daemon, image: str) -> None:
    pod, container = running(daemon, image)
    keys = {each.name: list(each.label_keys) for each in daemon.cri.call("ListMetricDescriptors").descriptors}
    found = metrics_of(daemon, pod)
    (inside,) = found.container_metrics
    assert inside.container_id == container
    for metric in (*found.metrics, *inside.metrics):
        assert len(metric.label_values) == len(keys[metric.name])
    by_name = {metric.name.removeprefix("container_"): metric for metric in inside.metrics}
    assert list(by_name["last_seen"].label_values) == [container, image, "test", "shown", "sleeper"]
    assert by_name["spec_memory_limit_bytes"].value.value == 64 << 20
    assert by_name["memory_usage_bytes"].value.value > 0
    assert by_name["processes"].value.value == 1
    assert by_name["file_descriptors"].value.value >= 3
    assert by_name["fs_limit_bytes"].value.value > 0
    assert {"cpu_usage_seconds_total", "oom_events_total", "start_time_seconds", "threads"} <= by_name.keys()
    network = {(metric.name, metric.label_values[-1]) for metric in found.metrics}
    assert ("container_network_receive_bytes_total", "eth0") in network
    assert {interface for _, interface in network} == {"eth0"}


def test_stream_and_list_say_the_same(daemon: Daemon, image: str) -> None:
    pods = [running(daemon, image)[0]]
    streamed = [each for batch in daemon.cri.stream("StreamPodSandboxMetrics") for each in batch.pod_sandbox_metrics]
    assert [each.pod_sandbox_id for each in streamed] == pods
    listed = daemon.cri.call("ListPodSandboxMetrics").pod_metrics
    assert [[metric.name for metric in each.metrics] for each in listed] == [
        [metric.name for metric in each.metrics] for each in streamed
    ]


def test_pods_on_the_network_of_the_node_have_no_network_metrics(daemon: Daemon) -> None:
    config = daemon.pod_config()
    config.linux.security_context.namespace_options.network = pb.NODE
    assert list(metrics_of(daemon, daemon.run_pod(config)).metrics) == []


def test_containers_that_come_and_go_spoil_no_list(daemon: Daemon, image: str) -> None:
    """11.6: every list is answered whole while containers are started and removed."""
    stays = running(daemon, image)
    stop, faults, lists = threading.Event(), list[BaseException](), []

    def ask() -> None:
        client = Cri(daemon.socket)
        try:
            while not stop.is_set() or len(lists) <= 5:
                pods = {each.attributes.id for each in client.call("ListPodSandboxStats").stats}
                containers = {each.attributes.id for each in client.call("ListContainerStats").stats}
                metrics = {each.pod_sandbox_id for each in client.call("ListPodSandboxMetrics").pod_metrics}
                lists.append((stays[0] in pods, stays[1] in containers, stays[0] in metrics))
        except BaseException as error:
            faults.append(error)
        finally:
            client.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number in range(8):
            pod = daemon.run_pod()
            gone = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
            if number % 2:
                os.kill(daemon.info(gone)["pid"], 9)
            daemon.remove_container(gone)
            daemon.remove_pod(pod)
    finally:
        stop.set()
        thread.join()
    assert faults == []
    assert len(lists) > 5
    assert set(lists) == {(True, True, True)}


@needs_fuse
def test_a_file_system_that_hangs_below_a_writable_layer_costs_nothing(daemon: Daemon, image: str) -> None:
    pod, hung = running(daemon, image)
    below = daemon.root / "rootfs" / hung / "diff" / "hung"
    with dead_mount(below):
        other = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000", name="other"))

        def layers() -> dict[str, bool]:
            found = daemon.cri.call("ListContainerStats", timeout_s=60).stats
            return {each.attributes.id: each.writable_layer.HasField("used_bytes") for each in found}

        assert layers().keys() == {hung, other}
        wait_for(lambda: layers() == {hung: False, other: True})
    below.rmdir()


def test_what_is_collected_in_the_background_is_told_until_the_next_time(
    daemon: Daemon, image: str, tmp_path: Path, registry: Registry
) -> None:
    settings = {**SETTINGS, "crio.stats.collection_period": 3600}
    with running_daemon(tmp_path, registries=registry.registries_conf(), settings=settings) as node:
        node.pull(image)
        pod, container = running(node, image)
        first, again = (node.cri.call("ListContainerStats").stats[0] for _ in range(2))
        assert first.cpu.timestamp == again.cpu.timestamp > 0
        pods = [node.cri.call("ListPodSandboxStats").stats[0] for _ in range(2)]
        assert pods[0].linux.memory.timestamp == pods[1].linux.memory.timestamp
        assert pods[0].attributes.id == pod
        assert metrics_of(node, pod).container_metrics[0].container_id == container
        node.remove_container(container)
        assert list(node.cri.call("ListContainerStats").stats) == []
