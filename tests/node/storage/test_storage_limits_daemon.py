"""Limits of writable layers in a daemon: of the node, of the handler and of a pod, on every file system that enforces some."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.daemon import Daemon, wait_for
from support.images import busybox_image, push
from support.registry import Registry, run_registry
from support.warm import disk_daemon

pytestmark = pytest.mark.node

SIZE = "storage-size.crio.io"


class Node(NamedTuple):
    daemon: Daemon
    root: Path
    image: str


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "busybox", "latest", busybox_image())
        yield running


@pytest.fixture(
    scope="module",
    params=[("overlay", "ext4+quota"), ("overlay", "xfs+quota"), ("vfs", "ext4+quota"), ("btrfs", "btrfs")],
    ids="-".join,
)
def node(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Node]:
    driver, kind = request.param
    settings = {
        "crio.storage_option": [f"{driver}.size=24MiB"],
        "crio.runtime.runtimes.crun.allowed_annotations": [SIZE],
    }
    with disk_daemon(driver, kind, registry, settings) as (daemon, root):
        daemon.stop()
        conf = daemon.place / "crio.conf"
        conf.write_text(f'{conf.read_text()}[crio.runtime.runtimes.runc.default_annotations]\n"{SIZE}" = "16MiB"\n')
        daemon.start()
        image = registry.reference("busybox")
        daemon.pull(image)
        yield Node(daemon, root, image)


def takes(daemon: Daemon, container: str, mebibytes: int) -> bool:
    """Whether so much can be written; it is removed again."""
    command = f"dd if=/dev/urandom of=/large bs=1M count={mebibytes} conv=fsync; status=$?; rm /large; sync; exit $status"
    return bool(daemon.exec(container, "sh", "-c", command).exit_code == 0)


def test_the_nearest_limit_holds_and_outlives_the_daemon(node: Node) -> None:
    daemon = node.daemon
    own = daemon.run_pod(daemon.pod_config("own", annotations={f"{SIZE}/main": "8MiB"}))
    handlers = daemon.run_pod(daemon.pod_config("handlers"), handler="runc")
    nodes = daemon.run_pod(daemon.pod_config("nodes"))
    limits = {
        daemon.run_container(pod, daemon.container_config(node.image, "sleep", "1000")): limit
        for pod, limit in ((own, 8), (handlers, 16), (nodes, 24))
    }
    for _ in range(2):
        for container, limit in limits.items():
            assert not takes(daemon, container, limit + 4), limit
            assert takes(daemon, container, limit - 3), limit
        daemon.restart(signal.SIGKILL)
    for pod in (own, handlers, nodes):
        daemon.remove_pod(pod)
    wait_for(lambda: os.listdir(node.root / "trash") == [])
    assert os.listdir(node.root / "rootfs") == []
