"""The daemon as its users see it: through its socket, with the real programs below. Every test is checked for leaks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.daemon import Daemon
from support.images import busybox_image, push
from support.registry import Registry, run_registry
from support.warm import warm_daemon

WORKERS_REST_S = 60  # those that look at volumes stay for half a minute, each with two descriptors


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "busybox", "latest", busybox_image())
        yield running


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of a module; each test leaves it as empty as it was."""
    with warm_daemon(Path(tmp_path_factory.mktemp("node")), registry) as running:
        yield running


@pytest.fixture
def image(daemon: Daemon, registry: Registry) -> str:
    return registry.reference("busybox")


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test with the shared daemon: no mount, namespace, cgroup, process, interface or address more."""
    if "daemon" not in request.fixturenames:
        yield
        return
    running: Daemon = request.getfixturevalue("daemon")
    before, held = leaks.snapshot(namespaces_dir=running.runroot), leaks.held_by(running.pid)
    pid = running.pid
    yield
    if running.process is None:
        running.start()
    running.remove_everything()
    if running.pid == pid:
        assert leaks.leaked(before, namespaces_dir=running.runroot) == {}
    assert addresses(running) == []
    if running.pid == pid:
        assert leaks.settled(lambda: _grown(held, pid), WORKERS_REST_S) == {}


def addresses(running: Daemon) -> list[str]:
    """Addresses that the network's IPAM still holds."""
    directory = running.place / "ipam" / "test"
    return [name for name in os.listdir(directory) if name[0].isdigit()] if directory.is_dir() else []


def _grown(before: dict[str, int], pid: int) -> dict[str, list[str]]:
    """Descriptors beyond the start; pools of threads may fill up to their size once."""
    now = leaks.held_by(pid)
    return {"fds": [f"{before['fds']} -> {now['fds']}"]} if now["fds"] > before["fds"] + 3 else {}
