"""Streaming as its users see it: kubectl through an API server's stand-in, the real daemon and containers below."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.apiserver import ApiServer, Served, run_api_server
from support.daemon import Daemon, running_daemon
from support.images import busybox_layer, make_image, push, symlink
from support.kubectl import SUITES, Kubectl, program
from support.registry import Registry, run_registry

APPLETS = ("pidof", "setsid", "stty", "tar", "tee", "tty")


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        layer = busybox_layer(symlink(f"bin/{applet}", "busybox") for applet in APPLETS)
        push(running, "busybox", "latest", make_image([layer]))
        yield running


@pytest.fixture(scope="session")
def image(registry: Registry) -> str:
    return registry.reference("busybox")


@pytest.fixture(scope="module")
def daemon(registry: Registry, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of a module; each test leaves it as empty as it was."""
    before = leaks.snapshot()
    directory = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(directory, registries=registry.registries_conf()) as running:
        running.pull(image)
        for _ in range(2):  # the first pod starts threads and opens files that stay
            pod = running.run_pod()
            running.exec(running.run_container(pod, running.container_config(image, "sleep", "1000")), "true")
            running.remove_pod(pod)
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def no_leaks(daemon: Daemon) -> Iterator[None]:
    """After every test: no mount, namespace, cgroup, process, interface, descriptor or address more."""
    before, held = leaks.snapshot(namespaces_dir=daemon.runroot), leaks.held_by(daemon.pid)
    yield
    daemon.remove_everything()
    assert leaks.leaked(before, namespaces_dir=daemon.runroot) == {}
    assert leaks.settled(lambda: _grown(held, leaks.held_by(daemon.pid)), 60) == {}
    assert [name for name in os.listdir(daemon.place / "ipam" / "test") if name[0].isdigit()] == []


def _grown(before: dict[str, int], now: dict[str, int]) -> dict[str, list[str]]:
    """Descriptors beyond the start; pools of threads may fill up to their size once, connections must be gone."""
    allowed = {"fds": 3, "tcp": 0, "threads": 40}
    return {kind: [f"{before[kind]} -> {now[kind]}"] for kind in allowed if now[kind] > before[kind] + allowed[kind]}


@pytest.fixture
def server(daemon: Daemon, no_leaks: None) -> Iterator[ApiServer]:
    with run_api_server(daemon) as running:
        yield running


@pytest.fixture(params=SUITES)
def kubectl(request: pytest.FixtureRequest, server: ApiServer, tmp_path: Path) -> Kubectl:
    """Debian 12's kubectl, which speaks SPDY, and Debian 13's, which speaks WebSocket."""
    found = program(request.param)
    if found is None:
        pytest.skip(f"kubectl of Debian {SUITES[request.param]} is not there: scripts/setup.sh fetches it")
    return Kubectl(found, server.url, tmp_path)


@pytest.fixture
def web(daemon: Daemon, server: ApiServer, image: str) -> str:
    """The id of a running container, of the pod that kubectl knows as `web`."""
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(image, "sleep", "100000"))
    server.serve("web", pod, main=Served(container))
    return container
