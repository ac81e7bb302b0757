"""Tests that need systemd, cgroup v2 or a kernel with AppArmor or SELinux: they run in a virtual machine, by `make vm`."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.daemon import Daemon
from support.images import busybox_image, push
from support.registry import Registry, run_registry
from support.warm import warm_daemon

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marked by their place; outside they are skipped, not lost."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vm)
            if not os.environ.get("CRIOLLO_VM"):
                item.add_marker(pytest.mark.skip(reason="runs in a virtual machine: make vm"))


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "busybox", "latest", busybox_image())
        yield running


@pytest.fixture(scope="session")
def image(registry: Registry) -> str:
    return registry.reference("busybox")


@pytest.fixture(scope="module")
def daemon_with(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon with settings, by their names in the configuration file; the image is there. One per test module."""
    with ExitStack() as open_now:

        def start(**settings: Any) -> Daemon:
            return open_now.enter_context(warm_daemon(Path(tmp_path_factory.mktemp("vm")), registry, settings=settings))

        yield start


@pytest.fixture
def no_leaks() -> Iterator[Callable[[Daemon], None]]:
    """Asked for after the daemon: at the end its pods are removed and nothing more is there than before."""
    watched: list[tuple[Daemon, leaks.Snapshot]] = []

    def watch(running: Daemon) -> None:
        watched.append((running, leaks.snapshot(namespaces_dir=running.runroot)))

    yield watch
    for running, before in watched:
        running.remove_everything()
        assert leaks.leaked(before, namespaces_dir=running.runroot) == {}
