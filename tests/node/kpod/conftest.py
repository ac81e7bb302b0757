"""A node for kpod, once with a daemon and once without; every test is checked for leaks."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kpod_node import Kpod
from support import leaks
from support.daemon import Daemon, place, running_daemon
from support.images import busybox_image, push
from support.registry import Registry, run_registry


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "busybox", "latest", busybox_image())
        yield running


@pytest.fixture(scope="module", params=["daemon", "alone"])
def kpod(request: pytest.FixtureRequest, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kpod]:
    before = leaks.snapshot()
    directory = Path(tmp_path_factory.mktemp("node"))
    if request.param == "daemon":
        with running_daemon(directory, registries=registry.registries_conf()) as daemon:
            yield Kpod(daemon, registry.reference("busybox"))
    else:
        with place(directory):
            daemon = Daemon(directory, registries=registry.registries_conf())
            try:
                kpod = Kpod(daemon, registry.reference("busybox"))
                assert kpod("images").status == 0  # the first call makes the mounts that stay
                yield kpod
            finally:
                subprocess.run(["ip", "link", "delete", daemon.bridge], capture_output=True, check=False)
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def nothing_left(kpod: Kpod) -> Iterator[None]:
    """Each test leaves no pod, mount, namespace, cgroup, process, interface, log or volume."""
    runroot = kpod.daemon.runroot
    before = leaks.snapshot(namespaces_dir=runroot)
    yield
    left = [each["id"] for each in json.loads(kpod("pods", "--json").out)]
    if left:
        kpod("rm", "-f", *left)
    assert left == []
    assert leaks.leaked(before, namespaces_dir=runroot) == {}
    assert list(kpod.daemon.logs.iterdir()) == []
    assert [path.name for path in (kpod.daemon.root / "kpod").glob("**/*")] == []


@pytest.fixture
def no_images_left(kpod: Kpod) -> Iterator[None]:
    """Each test leaves no image and no layer."""
    yield
    assert kpod("rmi", "-a").status == 0
    assert kpod("prune", "-a").status == 0
    left = [path.name for path in (kpod.daemon.root / "layers").iterdir() if path.name != "empty"]
    assert (left, os.listdir(kpod.daemon.root / "staging")) == ([], [])
