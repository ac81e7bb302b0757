"""The whole daemon on every storage driver: pull, run, write, count, die, go on, remove; nothing left."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.images import busybox_layer, directory, file, make_image, push, whiteout
from support.registry import Registry, run_registry
from support.warm import disk_daemon

pytestmark = pytest.mark.node

SIZE = "storage-size.crio.io"
FIRST, LENGTH = 100000, 65536


class Node(NamedTuple):
    daemon: Daemon
    root: Path
    driver: str
    image: str


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        middle = [file("opt/old", "1"), file("opt/kept", "2", uid=5, gid=6), directory("open", mode=0o777)]
        top = [whiteout("opt/old"), file("opt/new", "3")]
        push(running, "layered", "latest", make_image([busybox_layer(), middle, top]))
        yield running


@pytest.fixture(
    scope="module",
    params=[("overlay", "btrfs"), ("btrfs", "btrfs"), ("vfs", "ext4"), ("vfs", "xfs")],
    ids="-".join,
)
def node(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Node]:
    driver, kind = request.param
    settings = {"crio.runtime.runtimes.crun.allowed_annotations": [SIZE]}
    with disk_daemon(driver, kind, registry, settings) as (daemon, root):
        image = registry.reference("layered")
        daemon.pull(image)
        yield Node(daemon, root, driver, image)


def used(daemon: Daemon, container: str) -> int:
    found = daemon.cri.call("ContainerStats", pb.ContainerStatsRequest(container_id=container)).stats
    return int(found.writable_layer.used_bytes.value)


def nothing_left(node: Node) -> None:
    wait_for(lambda: os.listdir(node.root / "trash") == [])
    assert os.listdir(node.root / "rootfs") == []


def test_container_writes_are_counted_survive_a_kill_and_go_with_it(node: Node) -> None:
    daemon = node.daemon
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(node.image, "sleep", "1000"))
    assert daemon.output(container, "sh", "-ec", "ls /opt; cat /opt/new") == "kept\nnew\n3"
    before = used(daemon, container)
    daemon.output(container, "dd", "if=/dev/urandom", "of=/opt/large", "bs=1M", "count=3")
    daemon.output(container, "sync")
    wait_for(lambda: (3 << 20) <= used(daemon, container) - before <= (4 << 20))
    daemon.restart(signal.SIGKILL)
    assert daemon.output(container, "sh", "-ec", "echo more >> /opt/new; cat /opt/new") == "3more\n"
    wait_for(lambda: used(daemon, container) >= 3 << 20)
    other = daemon.run_container(pod, daemon.container_config(node.image, "sleep", "1000", name="other"))
    assert daemon.output(other, "sh", "-ec", "ls /opt; cat /opt/new") == "kept\nnew\n3"
    daemon.remove_pod(pod)
    nothing_left(node)


def test_containers_of_a_pod_with_a_user_namespace_own_their_files(node: Node) -> None:
    daemon = node.daemon
    config = daemon.pod_config()
    map_users(config)
    pod = daemon.run_pod(config)
    wanted = daemon.container_config(node.image, "sleep", "1000")
    map_users(wanted)
    container = daemon.run_container(pod, wanted)
    assert (
        daemon.output(container, "sh", "-ec", "stat -c %u:%g / /opt/new /opt/kept; echo x > /opt/mine; id -u")
        == "0:0\n0:0\n5:6\n0\n"
    )
    daemon.restart(signal.SIGKILL)
    assert daemon.output(container, "cat", "/opt/mine") == "x\n"
    daemon.remove_pod(pod)
    nothing_left(node)


def map_users(config: Any) -> None:
    options = config.linux.security_context.namespace_options
    options.userns_options.mode = pb.POD
    for ids in (options.userns_options.uids, options.userns_options.gids):
        ids.add(host_id=FIRST, container_id=0, length=LENGTH)


def test_annotation_limits_a_container_and_not_its_neighbour(node: Node) -> None:
    daemon = node.daemon
    pod = daemon.run_pod(daemon.pod_config(annotations={f"{SIZE}/bound": "8MiB"}))
    bound = daemon.container_config(node.image, "sleep", "1000", name="bound")
    if node.driver != "btrfs":
        with pytest.raises(grpc.RpcError, match="enforces no project quotas"):
            daemon.create(pod, bound)
        daemon.remove_pod(pod)
        nothing_left(node)
        return
    container = daemon.run_container(pod, bound)
    free = daemon.run_container(pod, daemon.container_config(node.image, "sleep", "1000", name="free"))
    beyond = daemon.exec(container, "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=20", "conv=fsync")
    assert beyond.exit_code != 0
    assert "uota" in beyond.stderr.decode()
    daemon.output(free, "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=20", "conv=fsync")
    daemon.output(container, "rm", "/large")
    daemon.restart(signal.SIGKILL)
    assert daemon.exec(container, "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=20").exit_code != 0
    daemon.remove_pod(pod)
    nothing_left(node)


def test_malformed_limit_is_told(node: Node) -> None:
    daemon = node.daemon
    pod = daemon.run_pod(daemon.pod_config(annotations={SIZE: "lots"}))
    with pytest.raises(grpc.RpcError, match=r"annotation storage-size\.crio\.io: got 'lots'"):
        daemon.create(pod, daemon.container_config(node.image, "true"))
    daemon.remove_pod(pod)
    nothing_left(node)


def test_tree_of_an_image_goes_with_the_image(node: Node) -> None:
    daemon = node.daemon
    pod = daemon.run_pod()
    daemon.run_container(pod, daemon.container_config(node.image, "sleep", "1000"))
    daemon.remove_pod(pod)
    daemon.cri.call("RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=node.image)))
    nothing_left(node)
    assert os.listdir(node.root / "layers") == ["empty"]
    if node.driver != "overlay":
        assert set(os.listdir(node.root / "trees")) <= {"empty"}
    daemon.pull(node.image)


def test_another_driver_is_refused_while_there_are_containers(node: Node) -> None:
    daemon, other = node.daemon, "vfs" if node.driver == "overlay" else "overlay"
    pod = daemon.run_pod()
    daemon.run_container(pod, daemon.container_config(node.image, "sleep", "1000"))
    daemon.stop()
    text = (daemon.place / "crio.conf").read_text()
    (daemon.place / "crio.conf").write_text(text.replace(f'storage_driver = "{node.driver}"', f'storage_driver = "{other}"'))
    daemon.start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(30) != 0
    daemon.process = None
    assert f"cannot use storage driver {other} in {node.root}: it has" in daemon.log()
    (daemon.place / "crio.conf").write_text(text)
    daemon.start()
    daemon.remove_pod(pod)
    nothing_left(node)
