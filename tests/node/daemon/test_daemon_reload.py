"""SIGHUP at a running daemon: what changes at once, what waits for a restart, and a configuration that cannot be used."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support import leaks
from support.daemon import Daemon, running_daemon, wait_for
from support.image_node import pull, remove, status
from support.registry import Registry

pytestmark = pytest.mark.node

DONE = "configuration reload completed"


@pytest.fixture
def daemon(registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    before = leaks.snapshot()
    with running_daemon(tmp_path / "node", registries=registry.registries_conf()) as running:
        yield running
    assert leaks.leaked(before) == {}


def change(daemon: Daemon, *pairs: tuple[str, str], said: str = DONE) -> str:
    """Replace texts of the configuration, send SIGHUP, and return what the daemon logged until it `said` it is done."""
    conf = daemon.place / "crio.conf"
    text = conf.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    conf.write_text(text)
    seen = len(daemon.log())
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: said in daemon.log()[seen:])
    return daemon.log()[seen:]


def test_the_log_level_changes(daemon: Daemon) -> None:
    said = change(daemon, ('log_level = "debug"', 'log_level = "info"'))
    assert "key=crio.runtime.log_level value=info" in said
    seen = len(daemon.log())
    daemon.cri.call("ListImages")
    assert " debug " not in daemon.log()[seen:]


def test_pinned_images_change(daemon: Daemon, registry: Registry) -> None:
    name = registry.reference("busybox")
    pull(daemon, name)
    assert not status(daemon, name).pinned
    change(daemon, ("[crio.image]\n", f'[crio.image]\npinned_images = ["{name}"]\n'))
    assert status(daemon, name).pinned
    change(daemon, (f'pinned_images = ["{name}"]\n', ""))
    assert not status(daemon, name).pinned
    remove(daemon, name)


def test_registries_are_read_again(daemon: Daemon, registry: Registry) -> None:
    conf = daemon.place / "registries.conf"
    rules = conf.read_text()
    conf.write_text(rules + f'\n[[registry]]\nprefix = "{registry.host}/blocked"\nlocation = "x.invalid"\nblocked = true\n')
    change(daemon)
    assert "blocked" in refusal(daemon, f"{registry.host}/blocked/app:v1")
    conf.write_text("nonsense")
    assert "registries.conf" in change(daemon, said="unable to reload configuration")
    assert "blocked" in refusal(daemon, f"{registry.host}/blocked/app:v1")


def refusal(daemon: Daemon, name: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        pull(daemon, name)
    return str(caught.value.details())


def test_what_needs_a_restart_is_named_once(daemon: Daemon) -> None:
    said = change(daemon, ('log_level = "debug"', 'log_level = "debug"\npids_limit = 77'))
    assert "a restart is needed" in said
    assert "key=crio.runtime.pids_limit" in said
    assert "a restart is needed" not in change(daemon)


def test_a_configuration_that_cannot_be_used_changes_nothing(daemon: Daemon) -> None:
    said = change(daemon, ('log_level = "debug"', 'log_level = "loud"'), said="unable to reload configuration")
    assert "log_level" in said
    seen = len(daemon.log())
    daemon.cri.call("ListImages")
    assert " debug " in daemon.log()[seen:]
    assert DONE in change(daemon, ('log_level = "loud"', 'log_level = "debug"'))
