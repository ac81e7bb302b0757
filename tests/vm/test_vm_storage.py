"""Limits of writable layers as a container meets them: project quotas of ext4 and xfs, which the node's kernel may lack."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.registry import Registry
from support.warm import disk_daemon

SIZE, INODES = "storage-size.crio.io", "storage-inodes.crio.io"
MIB = 1 << 20
FILL = ("dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=20", "conv=fsync")


class Node(NamedTuple):
    daemon: Daemon
    root: Path
    driver: str


@pytest.fixture(
    scope="module",
    params=[("overlay", "ext4+quota"), ("overlay", "xfs+quota"), ("vfs", "ext4+quota")],
    ids="-".join,
)
def node(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Node]:
    driver, kind = request.param
    settings = {
        "crio.storage_option": [f"{driver}.size=16MiB"],
        "crio.runtime.runtimes.crun.allowed_annotations": [SIZE, INODES],
    }
    with disk_daemon(driver, kind, registry, settings) as (daemon, root):
        daemon.pull(registry.reference("busybox"))
        yield Node(daemon, root, driver)


def run(node: Node, image: str, name: str = "main", **annotations: str) -> str:
    pod = node.daemon.run_pod(node.daemon.pod_config(annotations=annotations))
    return node.daemon.run_container(pod, node.daemon.container_config(image, "sleep", "10000", name=name))


def refuses(node: Node, container: str, *command: str) -> None:
    answer = node.daemon.exec(container, *command, timeout=120)
    assert answer.exit_code != 0, answer
    assert b"uota" in answer.stderr or b"No space left" in answer.stderr, answer


def used(node: Node, container: str) -> int:
    stats = node.daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats
    return int(stats.writable_layer.used_bytes.value)


def removed(node: Node) -> None:
    node.daemon.remove_everything()
    wait_for(lambda: os.listdir(node.root / "trash") == [])
    assert os.listdir(node.root / "rootfs") == []


def test_the_limit_of_the_node_and_that_of_an_annotation_are_met_from_inside(node: Node, image: str) -> None:
    plain, small, free = run(node, image), run(node, image, **{SIZE: "8MiB"}), run(node, image, **{SIZE: "0"})
    for container in (plain, small):
        refuses(node, container, *FILL)
    sizes = [int(node.daemon.output(each, "stat", "-c", "%s", "/large")) for each in (plain, small)]
    assert 14 * MIB <= sizes[0] <= 16 * MIB
    assert 6 * MIB <= sizes[1] <= 8 * MIB
    node.daemon.output(free, *FILL)
    node.daemon.output(small, "rm", "/large")
    node.daemon.output(small, "dd", "if=/dev/urandom", "of=/again", "bs=1M", "count=4", "conv=fsync")
    removed(node)


def test_a_limit_outlives_the_daemon_and_is_what_statistics_count(node: Node, image: str) -> None:
    container = run(node, image, **{SIZE: "8MiB"})
    before = used(node, container)
    node.daemon.output(container, "dd", "if=/dev/urandom", "of=/some", "bs=1M", "count=3", "conv=fsync")
    wait_for(lambda: 3 * MIB <= used(node, container) - before <= 4 * MIB)
    node.daemon.restart(signal.SIGKILL)
    wait_for(lambda: 3 * MIB <= used(node, container) - before <= 4 * MIB)
    refuses(node, container, *FILL)
    removed(node)


def test_inodes_are_limited_too(node: Node, image: str) -> None:
    container = run(node, image, **{INODES: "100"})
    refuses(node, container, "sh", "-c", "mkdir /d && for i in $(seq 200); do : > /d/$i || exit 1; done")
    made = int(node.daemon.output(container, "sh", "-c", "ls /d | wc -l"))
    assert 70 <= made <= 100
    removed(node)


def test_a_file_of_a_removed_container_counts_to_nobody(node: Node, image: str) -> None:
    for _ in range(4):
        container = run(node, image, **{SIZE: "8MiB"})
        node.daemon.output(container, "dd", "if=/dev/urandom", "of=/some", "bs=1M", "count=6", "conv=fsync")
        removed(node)


def test_with_overlay_no_capability_lifts_a_limit(node: Node, image: str) -> None:
    """CAP_SYS_RESOURCE lifts quotas of ext4 and xfs, but overlay gives it up for what it writes."""
    pod = node.daemon.run_pod(node.daemon.pod_config(annotations={SIZE: "8MiB"}))
    config = node.daemon.container_config(image, "sleep", "10000")
    config.linux.security_context.capabilities.add_capabilities.append("SYS_RESOURCE")
    container = node.daemon.run_container(pod, config)
    if node.driver == "overlay":
        refuses(node, container, *FILL)
    else:
        node.daemon.output(container, *FILL)
    removed(node)


def test_an_annotation_that_is_not_allowed_changes_nothing(node: Node, image: str) -> None:
    pod = node.daemon.run_pod(node.daemon.pod_config(annotations={SIZE: "0"}), handler="runc")
    container = node.daemon.run_container(pod, node.daemon.container_config(image, "sleep", "10000"))
    refuses(node, container, *FILL)
    with pytest.raises(grpc.RpcError, match=r"got 'much'"):
        run(node, image, **{SIZE: "much"})
    removed(node)
