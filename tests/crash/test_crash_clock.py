"""A clock that leaps by years, forward and back, whenever the daemon looks: nothing that it does may depend on it."""

from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from support.bad_registry import BadRegistry, cut_after, run_bad_registry, status
from support.daemon import Daemon, running_daemon
from support.footprint import footprint, left
from support.image_node import pull
from support.images import busybox_image

pytestmark = pytest.mark.node

YEAR_S = 365 * 86400


@pytest.fixture
def bad() -> Iterator[BadRegistry]:
    with run_bad_registry() as running:
        running.add("app", "v1", busybox_image())
        yield running


@pytest.fixture
def daemon(bad: BadRegistry, tmp_path: Path) -> Iterator[Daemon]:
    tuned = {"clock_jumps_s": YEAR_S}
    with running_daemon(tmp_path / "node", registries=bad.registries_conf(), tuned=tuned) as running:
        before = footprint(running)
        yield running
        running.remove_everything()
        assert left(running, before) == {}


def test_pulls_and_containers_go_on(daemon: Daemon, bad: BadRegistry) -> None:
    bad.break_at("manifests/", status(429, Retry_After=formatdate(0, usegmt=True)), times=2)
    bad.break_at("/blobs/", status(503), times=1)
    bad.break_at("/blobs/", cut_after(10), times=1)
    reference = bad.reference("app", "v1")
    pulled = pull(daemon, reference)
    pod = daemon.run_pod()
    container = daemon.run_container(pod, daemon.container_config(reference, "sleep", "1000"))
    assert daemon.output(container, "echo", "works") == "works\n"
    daemon.restart()
    assert [image.id for image in daemon.cri.call("ListImages").images] == [pulled]
    assert daemon.output(container, "echo", "works") == "works\n"
    daemon.stop_container(container)
    daemon.remove_pod(pod)


def test_a_wait_until_a_date_has_an_end(daemon: Daemon, bad: BadRegistry) -> None:
    bad.break_at("manifests/", status(503, Retry_After=formatdate(YEAR_S * 100, usegmt=True)), times=1)
    assert pull(daemon, bad.reference("app", "v1"), timeout_s=120)


def test_of_one_name_the_newest_is_the_last_that_was_made(daemon: Daemon, bad: BadRegistry) -> None:
    """By that kubelet tells the current sandbox, and the current container, from those that it replaced."""
    reference = bad.reference("app", "v1")
    pull(daemon, reference)
    config, pods, containers = daemon.pod_config(), [], []
    for attempt in range(5):
        config.metadata.attempt = attempt
        pods.append(daemon.run_pod(config))
    for attempt in range(5):
        asked = daemon.container_config(reference, "true")
        asked.metadata.attempt = attempt
        containers.append(daemon.create(pods[-1], asked))
    pod_times = {each.id: each.created_at for each in daemon.cri.call("ListPodSandbox").items}
    container_times = {each.id: each.created_at for each in daemon.cri.call("ListContainers").containers}
    assert sorted(pod_times, key=pod_times.__getitem__) == pods
    assert sorted(container_times, key=container_times.__getitem__) == containers
    daemon.remove_everything()
