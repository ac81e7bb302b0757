"""A daemon that is killed or failed on purpose; afterwards nothing may be left and everything must work again.

What a module says of itself tunes its daemon: KNOBS and POINTS (`support.faulty_daemon`), SETTINGS (its configuration).
"""

from collections.abc import Iterator

import pytest
from support.daemon import Daemon
from support.footprint import footprint, left
from support.hooked import Hooks
from support.images import busybox_image, push
from support.registry import Registry, run_registry
from support.warm import passable


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        push(running, "busybox", "latest", busybox_image())
        yield running


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Hooks:
    return Hooks(tmp_path_factory.mktemp("hooks"))


@pytest.fixture
def image(registry: Registry) -> str:
    return registry.reference("busybox")


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, registry: Registry, hooks: Hooks) -> Iterator[Daemon]:
    """One place for all tests of a module; the daemons in it come and go."""
    knobs, settings, points = (getattr(request.module, name, {}) for name in ("KNOBS", "SETTINGS", "POINTS"))
    with passable() as place, hooks.daemon(place, registry, knobs, settings=settings, points=tuple(points)) as running:
        yield running


def revive(daemon: Daemon) -> None:
    """Start a daemon that a test has ended; one that has ended by itself fails this test, and no other."""
    ended = None if daemon.process is None else daemon.process.poll()
    if daemon.process is None or ended is not None:
        daemon.kill()
        daemon.start()
    assert ended is None, daemon.log()[-3000:]


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The shared daemon, as empty after the test as before it."""
    revive(shared)
    before = footprint(shared)
    yield shared
    revive(shared)
    shared.remove_everything()
    assert left(shared, before) == {}
